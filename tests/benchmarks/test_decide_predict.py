"""Maps of prediction: every row is there, each figure is what it says, and the course of things is as taught."""

import pytest

from benchmarks import _decide_predict as maps
from llmcourse.engine import SamplingParams
from llmcourse.predict import LengthData


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> LengthData:
    """A fifth of the prompts."""
    data = LengthData.load()
    part = data.select(range(0, len(data), 5))
    monkeypatch.setattr(maps.LengthData, "load", classmethod(lambda cls: part))
    return part


def test_predictors_have_order_error_and_cost(few: LengthData) -> None:
    table = {row["predictor"]: row for row in maps.predictors([0], True).rows}
    assert set(maps.made(0, True)) | {"the other answers"} == set(table)
    assert table["constant"]["tau"].mean == 0 < table["listmle"]["tau"].mean < table["the other answers"]["tau"].mean
    assert table["listmle"]["MAE (tokens)"] is None and table["mlp"]["MAE (tokens)"].mean > 0
    assert table["mlp, noise 0.6"]["tau"].mean < table["mlp"]["tau"].mean
    assert all(row["CPU ms a request"].mean > 0 for name, row in table.items() if name != "the other answers")


def test_a_burst_ends_sooner_when_the_short_go_first(few: LengthData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "SLOTS", 3)
    monkeypatch.setattr(maps, "SAMPLING", SamplingParams(max_tokens=50, temperature=1.0))
    made = maps.burst([0], True)
    table = {row["policy"]: row for row in made.rows}
    assert table["sjf, oracle"]["JCT to FCFS"].mean < -0.2
    assert table["sjf, oracle"]["JCT (steps)"].mean <= table["sjf, ranker"]["JCT (steps)"].mean
    assert table["sjf, ranker"]["JCT to FCFS"].mean < 0 == table["fcfs"]["JCT to FCFS"].mean
    assert made.verdicts["answers of another length than under FCFS"] <= 4, "more than rounding explains"
