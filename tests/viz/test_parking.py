"""The car park: the same arrivals in every memory, every slot drawn once and as what it is."""

import xml.etree.ElementTree as ET

import pytest

from llmcourse import viz
from llmcourse.engine import Engine, VirtualClock
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool, ContiguousPool
from llmcourse.metrics.kv_meter import KVUsage
from llmcourse.viz.filming import Place, Stretch
from llmcourse.viz.parking import at_step
from llmcourse.workload import Arrival

ARRIVALS = [Arrival(float(i), prompt, output) for i, (prompt, output) in enumerate(
    [(10, 3), (5, 20), (14, 9), (3, 16), (16, 4), (7, 7), (12, 12), (4, 18)])]
POOLS = {"reserve the maximum": lambda: ContiguousPool(96, reservation="max", max_length=32),
         "exact": lambda: ContiguousPool(96, reservation="exact"),
         "growing": lambda: ContiguousPool(96, compaction=True),
         "paged": lambda: BlockPool(24, 4)}


@pytest.fixture(scope="module")
def films():
    made = {}
    for name, pool in POOLS.items():
        memory = pool()
        engine = Engine(MockExecutor(memory.block_size, step_seconds=1, token_seconds=0), memory, token_budget=64,
                        clock=VirtualClock(), checked=True)
        made[name] = viz.film(engine, ARRIVALS)
    return made


def test_stretches_are_slots_in_place_cut_where_the_kind_changes():
    assert Place("a", (5, 6, 7, 8), stored=2, final=3).stretches(1) == [
        Stretch(5, 7, "used"), Stretch(7, 8, "reserved"), Stretch(8, 9, "internal")]
    assert Place("a", (9, 2), stored=5, final=6).stretches(4) == [        # paged: the second block lies lower
        Stretch(8, 9, "used"), Stretch(9, 10, "reserved"), Stretch(10, 12, "internal"), Stretch(36, 40, "used")]


def test_a_film_has_every_moment_and_all_slots_of_each(films):
    for name, moments in films.items():
        assert [moment.step for moment in moments] == sorted({moment.step for moment in moments}), name
        assert moments[0].step == 0 and not moments[-1].places and not moments[-1].waiting
        for moment in moments:
            stretches = [s for place in moment.places for s in place.stretches(moment.block_size)]
            assert sum(s.end - s.start for s in stretches if s.kind == "used") == moment.waste.used
            assert sum(s.end - s.start for s in stretches if s.kind == "reserved") == moment.waste.reserved
            assert sum(s.end - s.start for s in stretches if s.kind == "internal") == moment.waste.internal
            assert sum(map(len, moment.useless)) * moment.block_size == moment.waste.external
            slots = [slot for s in stretches for slot in range(s.start, s.end)]
            assert len(slots) == len(set(slots))
    assert films["paged"][-1].copied == 0 < films["growing"][-1].copied
    assert any(moment.useless for moment in films["growing"])


def test_paged_memory_parks_more_at_once_and_is_done_earlier(films):
    most = {name: max(len(moment.places) for moment in moments) for name, moments in films.items()}
    assert most["paged"] >= 2 * most["reserve the maximum"] and most["reserve the maximum"] == 3
    assert films["paged"][-1].step < films["reserve the maximum"][-1].step


def drawn(figure):
    svg = viz.to_svg(figure, viz.summary(figure))
    root = ET.fromstring(svg)
    assert root.get("aria-label") == viz.summary(figure) and viz.summary(figure).endswith(".")
    assert min(float(node.get("font-size")) for node in root.iter() if node.get("font-size")) >= 13
    assert "nan" not in svg.lower() and len(svg) < 200_000
    return figure


@pytest.mark.parametrize("step", [0, 6, 1000])
def test_the_car_park_draws_every_slot_that_is_held(films, step):
    figure = drawn(viz.car_park(films, step, across=30))
    lengths = {trace.name: sum(trace.x) for trace in figure.data}
    moments = [at_step(film, step) for film in films.values()]
    assert lengths["holds a token"] == sum(moment.waste.used for moment in moments)
    assert lengths["set aside and never filled"] == sum(moment.waste.internal for moment in moments)
    assert lengths["free, too small for the first in line"] == sum(moment.waste.external for moment in moments)
    assert all(start + length <= 30 for trace in figure.data for start, length in zip(trace.base, trace.x, strict=True))
    rows = viz.table(figure).rows
    assert [row[0] for row in rows] == list(POOLS) and all(sum(map(int, row[3:8])) == 96 for row in rows)
    assert all(moment.step <= step or moment is film[0] for moment, film in zip(moments, films.values(), strict=True))


def test_a_request_has_the_same_letter_everywhere(films):
    figure = viz.car_park(films, 2)
    tips = [tip for trace in figure.data[:3] for tip in trace.hovertext]
    assert {tip.split(":")[0] for tip in tips} <= {f"{chr(65 + n)} (r{n})" for n in range(8)}
    assert "A (r0)" in {tip.split(":")[0] for tip in tips}


def test_the_history_draws_every_slot_step(films):
    for moments in films.values():
        figure = drawn(viz.memory_history(moments))
        area = {trace.name: sum(w * h for w, h in zip(trace.width, trace.y, strict=True)) for trace in figure.data}
        assert area["holds a token"] == sum(moment.waste.used for moment in moments)
        assert area["reserved: its token will come"] == sum(moment.waste.reserved for moment in moments)


def test_the_explorer_steps(films):
    explorer = viz.car_park_explorer(films, question="Who gets in first?")
    explorer.set(step=3)
    assert "After 3 steps" in viz.summary(viz.car_park(films, 3))
    assert explorer.snapshot()


def test_the_split_says_where_memory_goes():
    usages = {"reserve-max": KVUsage(1.0, 13.0, 0.32, 0.04, 0.58, 0.05, 0.01),
              "paged": KVUsage(1.0, 38.5, 0.93, 0.02, 0.0, 0.0, 0.05)}
    figure = drawn(viz.memory_split(usages))
    for place, usage in enumerate(usages.values()):
        assert [trace.x[place] for trace in figure.data] == [usage.used, usage.reserved, usage.internal, usage.external,
                                                             usage.free]
        ends = [trace.base[place] + trace.x[place] for trace in figure.data]
        assert ends[:-1] == [trace.base[place] for trace in figure.data[1:]] and ends[-1] == pytest.approx(1)
    assert viz.table(figure).rows[1][:3] == ("paged", "38.5", "0.93") and "paged 93%" in viz.summary(figure)
    with pytest.raises(UserError):
        viz.memory_split({})


def test_nothing_to_see_is_said():
    with pytest.raises(UserError, match="films that are not empty"):
        viz.car_park({})
    with pytest.raises(UserError):
        viz.memory_history([])
