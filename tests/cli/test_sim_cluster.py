"""`llmcourse sim` with several instances: who gets what, and who gives whom something."""

import json

import pytest

from llmcourse.cli.sim import main
from llmcourse.errors import UserError

BUSY = ["--instances", "4", "--gpu", "A10", "--num-blocks", "700", "--rate", "5", "--requests", "150", "--poisson",
        "--max-prompt", "3000", "--json"]


def answer(capsys, *arguments):
    assert main([*BUSY, *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_requests_move_only_when_asked_to_and_all_end(capsys):
    still, moving = (answer(capsys, "--dispatch", "freeness", *more)["mechanisms"]["counters"]
                     for more in ((), ("--migrate",)))
    assert still["sent_blocks"] == 0 < moving["sent_blocks"]
    assert 0 < moving["received_blocks"] <= moving["sent_blocks"], "what was sent for an aborted migration is lost"


def test_unknown_names_are_refused_in_one_line():
    with pytest.raises(UserError, match="least-tokens"):
        main([*BUSY, "--dispatch", "best"])
    with pytest.raises(UserError, match="stop-and-copy"):
        main([*BUSY, "--migrate", "teleport"])
