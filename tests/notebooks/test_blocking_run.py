"""The recorded run behind the "Replay" preset of week 4's demo: it can be drawn, and shows what the picture is for."""

import json

import pytest

from llmcourse import viz
from llmcourse.engine import Event, EventKind
from llmcourse.paths import week

RUNS = json.loads((week(4) / "blocking_run.json").read_text(encoding="utf-8"))["runs"]


def events(way: str) -> list[Event]:
    return [Event(time, EventKind(kind), request, data) for time, kind, request, data in RUNS[way]]


def longest_gap(way: str) -> float:
    table = viz.table(viz.blocking_view({way: events(way)}, watch="long prompt"))
    return float(dict(zip(table.columns, table.rows[0], strict=True))["longest after (s)"])


@pytest.mark.parametrize("way", ["whole", "in steps of 256", "in steps of 64", "in steps of 16"])
def test_every_way_is_recorded_whole(way: str) -> None:
    tokens = {name: 0 for name in [*(f"user {k}" for k in range(1, 7)), "long prompt"]}
    for event in events(way):
        if event.kind is EventKind.NEW_TOKENS:
            tokens[str(event.request)] += len(event.data["tokens"])
    assert tokens == {**{f"user {k}": 45 for k in range(1, 7)}, "long prompt": 12}


def test_chunks_shorten_the_longest_gap() -> None:
    assert longest_gap("whole") > 2 * longest_gap("in steps of 64")
