"""The fidelity experiment itself, on an "engine" whose every step time is known because it is simulated."""

import json

import numpy as np
import pytest

from benchmarks import fidelity
from benchmarks.fidelity import GOAL, SETTINGS, Row, experiment, held_out, verdict
from llmcourse.engine import Engine
from llmcourse.metrics.calibration import FittedCost

TRUE = FittedCost(overhead=3e-3, per_token=1e-4, per_request=5e-5, per_context=2e-6, per_pair=4e-8)


class Drifting:
    """Every engine it is made for is slower than the one before."""

    def __init__(self, factors) -> None:
        self.factors = iter(factors)

    def engine(self) -> Engine:
        factor = next(self.factors)

        class Cost:
            def seconds(self, tokens, requests, context, pairs):
                return factor * TRUE.seconds(tokens, requests, context, pairs)
        return Engine.simulated(cost=Cost(), **SETTINGS)


@pytest.fixture(autouse=True)
def short(monkeypatch) -> None:
    monkeypatch.setattr(fidelity, "USERS", (1, 4, 16))


def silent(text: str) -> None:
    """Say nothing."""


def test_a_machine_without_noise_is_foretold_to_the_last_digit() -> None:
    found = experiment(lambda: Engine.simulated(cost=TRUE, **SETTINGS), count=30, say=silent)
    assert len(found["rows"]) == 18 and {row.load for row in found["rows"]} == set(fidelity.LOADS)
    for row in found["rows"]:
        assert abs(row.error) < 1e-6 and row.spread == 0 and verdict(row, [0, 0]) == "yes"
    assert len(found["decisions"]) == 3 * 7 + 6
    assert [difference for _, difference in found["decisions"]] == [""] * (3 * 7 + 6)
    assert sum(count for count, _ in found["decisions"]) > 3000
    assert found["cost"].per_pair == pytest.approx(TRUE.per_pair)
    assert all(abs(share) < 1e-6 for speeds in found["speed"].values() for share in speeds)


def test_a_machine_that_turns_slow_in_real_runs_is_found_out() -> None:
    """Slices of calibration at full speed, every real run 30 % slower: nothing can be right, and the table says why."""
    order = [1.0] * 3 + ([1.0] * 3 + [1.3]) * 6
    found = experiment(Drifting(order).engine, count=30, say=silent)
    assert [share for speeds in found["speed"].values() for share in speeds] == pytest.approx([0.3] * 6)
    missed = [row for row in found["rows"] if abs(row.error) > GOAL]
    assert len(missed) == 18
    assert all("steps took +30%" in verdict(row, found["speed"][row.load]) for row in missed)
    assert all(abs(row.paced_error) < 1e-6 for row in missed)          # on a machine so slow the simulator is right


def test_the_held_out_workload_is_the_same_in_every_run_and_has_the_asked_rate() -> None:
    assert held_out(5.0, 50) == held_out(5.0, 50) and held_out(None, 50)[-1].time == 0
    assert 1 / np.mean(np.diff([a.time for a in held_out(5.0, 2000)])) == pytest.approx(5, rel=0.1)
    assert max(a.prompt_tokens + a.output_tokens for a in held_out(5.0, 200)) <= 1024


@pytest.mark.parametrize(("row", "speed", "said"), [
    (Row("", "", 1.0, 1.04, 1.1), [0, 0], "yes"),
    (Row("", "", 1.0, 1.5, 1.5), [0, 0], "no: real runs differ as much"),
    (Row("", "", 1.0, 1.0, 0.8), [0.1, 0.2], "no: steps took +15%"),
    (Row("", "", 1.0, 1.0, 0.8), [-0.1, -0.2], "no: the steps are right"),
])
def test_verdicts(row, speed, said) -> None:
    assert verdict(row, speed).startswith(said)


def test_a_run_whose_log_was_changed_is_followed_to_the_first_difference() -> None:
    engine = Engine.simulated(cost=TRUE, **SETTINGS | {"max_running": 4})
    fidelity.replay(engine, held_out(None, 8))
    count, difference = fidelity.followed(list(engine.events))
    assert count and difference.startswith("decision ")              # 32 would have run at once, not 4


@pytest.mark.slow
def test_the_command_runs_the_real_engine_and_ends_in_a_line_of_json(capsys, monkeypatch) -> None:
    monkeypatch.setattr(fidelity, "LOADS", {"all at once": None})
    monkeypatch.setattr(fidelity, "USERS", (1, 3, 6))
    assert fidelity.main(["--requests", "4"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["benchmark"] == "fidelity" and len(last["rows"]) == 6 and last["fit"]["steps"] > 100
    assert last["runs_that_differ"] == 0 and last["decisions"] > 300
