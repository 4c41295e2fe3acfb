"""`llmcourse sim` with several instances: who gets what, and who gives whom something."""

import json
import re

import pytest

from llmcourse.cli.sim import main
from llmcourse.cli.sim_run import make_policy
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


def test_a_fleet_grows_and_shrinks_when_asked_to(capsys):
    arguments = ["--instances", "1", "--dispatch", "freeness", "--autoscale", "queue:wait=0.5,most=4,down_after=20"]
    told = answer(capsys, *arguments)
    assert told["summary"]["finished"] == 150 and 1 < told["fleet"]["most"] <= 4 and told["cost"] is None
    hours = told["summary"]["duration"] / 3600
    assert hours <= told["fleet"]["instance_hours"] < 4.2 * hours and 0 < told["utilisation"]["busy"] <= 1
    assert main([*[each for each in BUSY if each != "--json"], *arguments]) == 0
    assert told["fleet"]["started"] >= told["fleet"]["most"] - 1
    assert "instance-hours" in (said := capsys.readouterr().out) and "instances started" in said
    with pytest.raises(UserError, match="slo-debt"):
        main([*BUSY, "--autoscale", "magic"])


def test_a_policy_that_is_nothing_by_itself_is_refused():
    for name in ("multibin", "s3"):
        with pytest.raises(UserError, match=f"--policy {name} brings"):
            make_policy(name)
    assert make_policy("mlfq:quantum=2").quantum == 2


def test_the_page_of_a_fleet_shows_its_instances_over_time(tmp_path):
    page = tmp_path / "page.html"
    assert main([*BUSY[2:-1], "--requests", "60", "--autoscale", "queue:wait=0.5,most=3", "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "A fleet over time" in text and text.count("<section>") == 6


def test_the_page_of_one_request_counts_it(tmp_path):
    page = tmp_path / "page.html"
    assert main(["--requests", "1", "--max-prompt", "300", "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"\b1 requests", text)                # 281 requests per wall second are none
    assert "1 request: the median" in text and "of the first request went" in text


def test_instances_keep_the_time_between_tokens_by_running_fewer_at_once(capsys):
    crowd = ["--rate", "40", "--token-budget", "128"]
    free, kept = answer(capsys, *crowd), answer(capsys, *crowd, "--itl", "0.04")
    assert kept["settings"]["itl"] == 0.04 and free["settings"]["itl"] is None
    assert kept["summary"]["finished"] == free["summary"]["finished"] == 150
    assert kept["summary"]["itl"]["mean"] < free["summary"]["itl"]["mean"]
    assert 1 < kept["utilisation"]["batch"] < free["utilisation"]["batch"]
    assert main([*[each for each in BUSY if each != "--json"], "--itl", "0.04"]) == 0
    assert "fewer where tokens come more than 0.04 s apart" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*BUSY, "--itl", "0"])
