"""Ageing and the prefix tree: what the pictures say is what the logs and the index hold."""

import pytest

from llmcourse import viz
from llmcourse.engine import Engine, VirtualClock
from llmcourse.engine.replay import replay
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool, make_pool
from llmcourse.kv.radix import RadixIndex
from llmcourse.policies import StaticPriority
from llmcourse.viz.ageing import waits
from llmcourse.workload import Arrival


def run(ageing):
    """Level 0 asks for the single seat all the time; level 2 comes first of all but one."""
    engine = Engine(MockExecutor(8, step_seconds=1, token_seconds=0), BlockPool(64, 8), StaticPriority(ageing=ageing),
                    max_running=1, token_budget=64, clock=VirtualClock())
    arrivals = [Arrival(float(k), 4, 2, priority=2 if k == 1 else 0) for k in range(12)]
    replay(engine, arrivals, stop=lambda: engine.clock.now >= 20)
    return engine.events


def test_waits_are_from_arrival_to_the_first_start_or_to_the_end_of_the_log():
    strict = {wait.request: wait for wait in waits(run(None))}
    assert not strict["r1"].served and strict["r1"].seconds == max(wait.seconds for wait in strict.values())
    aged = {wait.request: wait for wait in waits(run(2.0))}
    assert aged["r1"].served and aged["r1"].start == 1.0 and aged["r1"].level == 2
    later = [wait for wait in aged.values() if wait.served and wait.end < aged["r1"].end and wait.start > 1.0]
    assert later and max(wait.start for wait in later) <= 1.0 + 2 * 2.0, "the bound"


@pytest.mark.parametrize(("ageing", "said"), [(None, "1 of 1 still wait"), (2.0, "With one level every 2 s")])
def test_lines_end_where_their_level_says(ageing, said):
    figure = viz.priority_ageing(run(ageing), ageing)
    assert said in viz.summary(figure) and "level 2 waits up to" in viz.summary(figure)
    svg = viz.to_svg(figure, viz.summary(figure))
    assert "nan" not in svg.lower()
    for trace in figure.data:
        for start, end, first, last in zip(trace.x[::3], trace.x[1::3], trace.y[::3], trace.y[1::3], strict=False):
            if trace.mode == "lines":
                assert last == pytest.approx(first - (0 if ageing is None else (end - start) / ageing))
    assert [row[0] for row in viz.table(figure).rows] == ["0", "2"]


def test_nobody_and_no_ageing_is_refused():
    with pytest.raises(UserError):
        viz.priority_ageing([], None)
    with pytest.raises(UserError):
        viz.priority_ageing(run(None), 0.0)


def test_the_tree_shows_every_run_once():
    pool = make_pool(64, 2, "radix")
    texts = {"a": [1, 2, 3, 4, 5, 6], "b": [1, 2, 3, 4, 7, 8, 9, 9], "c": [1, 2, 3, 4, 7, 8], "d": [6, 6]}
    for name, text in texts.items():
        pool.open(name, text, len(text))
        pool.computed(name, text, len(text))
    figure = viz.prefix_tree(pool.index, lambda tokens: " ".join(map(str, tokens)))
    runs = {(int(row[0]), int(row[1]), row[4]) for row in viz.table(figure).rows}
    assert runs == {(0, 4, "1 2 3 4"), (4, 6, "5 6"), (4, 8, "7 8 9 9"), (0, 2, "6 6")}
    [bar] = figure.data
    assert sum(bar.x) == 12
    assert "3 texts of 16 tokens in all are kept in 6 blocks of 2 (12 tokens)" in viz.summary(figure)
    assert [line.x0 for line in figure.layout.shapes] == [4]
    assert viz.to_svg(figure, viz.summary(figure))


def test_an_empty_tree_is_said():
    with pytest.raises(UserError, match="empty"):
        viz.prefix_tree(RadixIndex(4))
