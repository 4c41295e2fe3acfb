"""Autoscalers by worked examples: what each rule wants, what the base class allows, and what a watch measures."""

from dataclasses import dataclass, replace

import pytest

from llmcourse.cluster import Drain, LoadReport, ScaleUp
from llmcourse.cluster.autoscale import (
    Autoscaler,
    ColdStart,
    Held,
    KVBased,
    Observed,
    Predictive,
    QueueBased,
    Reactive,
    SLODebt,
)
from llmcourse.cluster.autoscale.cold_start import WarmPool
from llmcourse.cluster.autoscale.watch import Watch
from llmcourse.cluster.instance import Instance
from llmcourse.cluster.roles import BATCH, MIXED
from llmcourse.engine import Request
from llmcourse.workload import SLO
from tests.cluster.worlds import ask, engine

NOW = 1000.0


def report(number, used=0, running=0, waiting=0, **more):
    return LoadReport(number, NOW, 100, 16, running, waiting, used, 10 * waiting, virtual_blocks=used, **more)


@dataclass(frozen=True, kw_only=True)
class Wants(Autoscaler):
    """Says what it was made with."""

    want: int = 1

    def wanted(self, reports, observed, now):
        assert not any(each.terminating for each in reports), "a rule is asked about those that take requests"
        return self.want


def decided(want, takes=2, leaving=0, starting=0, up=-1e9, down=-1e9, **bounds):
    """What is done when one wants so many; ``up`` and ``down``: seconds since the last of each, below 0."""
    scaler = Wants(want=want, tier="ssd", **bounds)
    fleet = [report(number, terminating=number >= takes) for number in range(takes + leaving)]
    seen = Observed(starting=("",) * starting, last_up=NOW + up, last_down=NOW + down)
    return scaler.decide(fleet, seen, NOW)


def test_as_many_as_are_wanted_within_the_bounds():
    assert decided(5) == [ScaleUp(3, "ssd")] and decided(5, starting=2) == [ScaleUp(1, "ssd")]
    assert decided(3, starting=1) == [] == decided(2)
    assert decided(99, most=6) == [ScaleUp(4, "ssd")]
    assert decided(99, leaving=1, most=4) == [ScaleUp(1, "ssd")], "who is being emptied still takes up a machine"
    assert decided(99, leaving=1, starting=1, most=4) == [] == decided(99, leaving=2, most=4)
    assert decided(1, 3) == [Drain(2), Drain(1)] and decided(0, 2) == [Drain(1)] and decided(0, 3, fewest=3) == []
    assert decided(1, 3, starting=1) == [], "nobody leaves while others come"


def test_both_rests_are_kept_to_the_second():
    assert decided(5, up=-15.0) == [ScaleUp(3, "ssd")] and decided(5, up=-14.9) == []
    assert decided(5, down=-0.1) == [ScaleUp(3, "ssd")], "a drain does not delay a start"
    assert decided(1, up=-60.0) == [Drain(1)] == decided(1, down=-60.0)
    assert decided(1, up=-59.9) == [] == decided(1, down=-59.9)


def test_who_died_is_replaced_at_once():
    assert decided(9, 1, up=-0.1, fewest=3) == [ScaleUp(2, "ssd")]
    assert decided(9, 1, leaving=2, up=-0.1, fewest=3, most=4) == [ScaleUp(1, "ssd")]
    assert decided(9, 1, leaving=1, starting=2, up=-0.1, fewest=4, most=4) == []
    assert decided(9, 1, starting=2, up=-0.1, fewest=3) == []


def test_the_emptiest_leaves_first_and_of_equals_the_youngest():
    fleet = [report(0, 5, 2), report(1, 9, 1), report(2, 3, 1), report(3, 3, 1), report(4, 0, 0, 1)]
    drained = Wants(want=1).decide(fleet, Observed(), NOW)
    assert [each.instance for each in drained] == [4, 3, 2, 1]


def test_cold_starts_by_tier_and_a_pool_of_two():
    assert ColdStart.of(warm=2, boot=3.0, tier="dram").warm == 2
    assert ColdStart.of(tier="dram").seconds() < ColdStart.of().seconds("ssd") < ColdStart.of().seconds()
    pool = WarmPool(ColdStart(weights=10e9, boot=15.0, tier="ssd", warm=2))
    assert [pool.ready(now, tier) for now, tier in ((0.0, "dram"), (5.0, ""), (6.0, "remote"), (14.0, ""), (15.0, ""),
                                                    (19.0, ""), (20.0, ""))] == [0.5, 7.0, 29.0, 31.0, 17.0, 36.0, 22.0]


# ---- the rules -------------------------------------------------------------------------------------------------------


def test_freeness_is_kept_in_its_band():
    rule = KVBased(10.0, 50.0)                                # between 10 and 60 blocks a request

    def wanted(*used, starting=0):
        fleet = [report(n, each, 1) for n, each in enumerate(used)]
        return rule.wanted(fleet, Observed(starting=("",) * starting), NOW)

    assert wanted(95, 86) == 3 and wanted(90, 90) == 2, "9.5 and 10"
    assert wanted(95, 86, starting=1) == 3, "who is starting will help"
    assert wanted(40, 40) == 2 and wanted(38, 40) == 1
    assert wanted(45, 45, starting=1) == 3, "the mean of those that are there"
    assert wanted(starting=2) == 2


def test_utilisation_grows_in_proportion_and_shrinks_by_one():
    rule = Reactive(0.7, 0.3)

    def wanted(*used, starting=0, waiting=0):
        return rule.wanted([report(n, each, 1, waiting) for n, each in enumerate(used)],
                           Observed(starting=("",) * starting), NOW)

    assert wanted(90, 80) == 4 and wanted(70, 70) == 2, "1.7 instances full make 4 at a half each"
    assert wanted(60, 60, waiting=2) == 4, "who waits counts: 80 blocks each"
    assert wanted(90, 80, starting=1) == 3, "57 % once it is there"
    assert wanted(29, 29) == 1 and wanted(30, 30) == 2
    assert replace(rule, high=0.5).wanted([report(0, 29), report(1, 29)], Observed(), NOW) == 2, "1 would be full"
    assert wanted(0) == 0


def test_a_queue_grows_by_who_waits_and_shrinks_when_nobody_does():
    rule = QueueBased(wait=1.0, queue=8, full=0.6)

    def wanted(waiting, longest, used=50, starting=0, here=2):
        fleet = [report(n, used, 1, waiting if n == 0 else 0) for n in range(here)]
        return rule.wanted(fleet, Observed(longest_wait=longest, starting=("",) * starting), NOW)

    assert wanted(17, 1.1) == 5 and wanted(8, 1.1) == 3 and wanted(0, 1.1) == 3 and wanted(17, 1.0) == 2
    assert wanted(17, 1.1, starting=1) == 5 and wanted(8, 1.1, starting=2) == 4, "who is starting counts for them"
    assert wanted(0, 0.0, used=29) == 1 and wanted(0, 0.0, used=30) == 2 and wanted(1, 0.0, used=5) == 2
    assert wanted(0, 0.0, used=39, here=3) == 2 and wanted(0, 0.0, used=41, here=3) == 3


def test_a_forecast_looks_at_the_bins_in_which_a_start_would_count():
    day = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    rule = Predictive(2.0, 360.0, day, lead=60.0, margin=0.0)
    assert rule.forecast(Observed(), 0.0) == 3.0, "now, and until it has been there for a bin"
    assert rule.forecast(Observed(), 119.0) == 4.0 and replace(rule, lead=0.0).forecast(Observed(), 0.0) == 2.0
    assert replace(rule, before=day[::-1]).forecast(Observed(), 60.0) == 5.0, "the first of them may be the most"
    assert rule.forecast(Observed(history=(9.0, 0.0)), 300.0) == 9.0, "tomorrow is like today"
    assert Predictive(2.0, 360.0, lead=60.0).forecast(Observed(history=(7.0,)), 60.0) is None
    assert Predictive(2.0, 360.0, lead=60.0).forecast(Observed(history=(7.0,) + (0.0,) * 5), 300.0) == 7.0


def test_a_forecast_plans_with_a_margin_and_a_guard():
    def wanted(expected, *used, starting=0, **options):
        rule = Predictive(2.0, 360.0, (expected,) * 6, **options)
        return rule.wanted([report(n, each, 1) for n, each in enumerate(used)],
                           Observed(starting=("",) * starting), 0.0)

    assert wanted(6.0, 50, margin=0.0) == 3 and wanted(6.0, 50) == 4, "a tenth more takes one more"
    assert wanted(1.0, 81, 81) == 3 and wanted(9.0, 81, 81) == 5, "one more than there are, or what was foretold"
    assert wanted(1.0, 81, 81, guard=None) == 1 and wanted(1.0, 81, 79) == 2, "160 % of two: not above 80 % of each"
    assert wanted(1.0, 90, 90, starting=1) == 3
    assert wanted(1.0, 30, 31) == 2, "one alone would hold 61 %, and 80 % call another back"
    assert wanted(1.0, 30, 29) == 1
    rule = Predictive(2.0, 360.0)
    assert rule.wanted([report(0, 10, 1), report(1, 10, 1)], Observed(), 0.0) == 2, "nothing is known: as it is"


# ---- what is owed ----------------------------------------------------------------------------------------------------


def test_interactive_pressure_is_kept_near_theta():
    rule = SLODebt(theta=0.6, band=0.15)

    def wanted(busy, idle, starting=0):
        fleet = [report(n, 1, 1, urgent=int(n < busy)) for n in range(busy + idle)]
        return rule.wanted(fleet, Observed(starting=("",) * starting), NOW)

    assert wanted(1, 1) == 2 and wanted(3, 1) == 4, "a half and three quarters are near enough"
    assert wanted(4, 1) == 7 and wanted(2, 0) == 4 and wanted(4, 1, starting=1) == 6
    assert wanted(0, 3) == 2 and wanted(4, 6) == 9 and wanted(2, 3) == 4, "one less at a time"
    assert replace(rule, theta=0.9, band=0.05).wanted([report(0, urgent=1)], Observed(), NOW) == 2
    assert rule.interactive_pressure([], 0) == 0 and rule.machines == 32


def test_who_can_wait_is_late_when_the_groups_before_it_take_too_long():
    rule = SLODebt(output=100.0, throughput=100.0, lead=10.0, most_batch=4, tier="ssd")
    held = (Held(10, 15.0), Held(10, 15.0), Held(10, 31.0))   # 10 s of one batch instance each
    pressure = {rate: rule.batch_pressure(Observed(held=held), rate, 0.0) for rate in (50.0, 100.0, 200.0, 0.0)}
    assert pressure == {50.0: 3, 100.0: 1, 200.0: 0, 0.0: 3}
    assert rule.batch_pressure(Observed(held=held), 100.0, 6.0) == 3 and rule.batch_pressure(
        Observed(held=(Held(10, 10.0),)), 100.0, 0.0) == 0, "in the last moment is in time"
    spread = SLODebt(output=100.0, variance=1e4, throughput=100.0)
    assert spread.batch_pressure(Observed(held=(Held(10, 12.0),)), 100.0, 0.0) == 1, "sure to 95 %, not on average"


def started(fleet, *held, starting=(), **options):
    rule = SLODebt(output=100.0, throughput=100.0, lead=10.0, most_batch=4, tier="ssd", **options)
    made = rule.decide(fleet, Observed(held=held, starting=starting), NOW)
    return [each for each in made if not (isinstance(each, ScaleUp) and each.role != BATCH)]


def test_batch_instances_are_the_fewest_that_help():
    alone = [report(0, 50, 3, urgent=1)]

    def up(count):
        return [ScaleUp(count, "ssd", BATCH)]

    assert started(alone, Held(10, NOW + 20.0)) == up(1) and started(alone, Held(10, NOW + 19.0)) == up(2)
    assert started(alone, Held(10, NOW + 15.0)) == up(2) and started(alone, Held(10, NOW + 13.0)) == up(4)
    assert started(alone, Held(10, NOW + 1.0)) == up(4), "too late for all of them: all there may be"
    mixed = [*alone, report(1, 50, 1, role=MIXED)]
    assert started(mixed, Held(10, NOW + 20.0)) == [], "half of its memory serves them in 20 s"
    assert started(mixed, Held(10, NOW + 19.0)) == up(1)
    assert started([*alone, report(1, 50, 1, role=MIXED, terminating=True)], Held(10, NOW + 20.0)) == up(1)
    here = [*alone, report(1, role=BATCH)]
    assert started(here, Held(10, NOW + 10.0)) == [] and started(alone, Held(10, NOW + 10.0), starting=(BATCH,)) == []
    assert started(here, Held(30, NOW + 25.0)) == up(1), "two do in 15 s what one does in 30"
    leaving = [*alone, report(1, role=BATCH, terminating=True)]
    assert started(leaving, Held(10, NOW + 11.0)) == up(3), "who is leaving takes up a machine and serves nobody"
    assert started(here, Held(90, NOW + 1.0), starting=(BATCH, BATCH)) == up(1)
    assert started(here, Held(90, NOW + 1.0), starting=(BATCH,) * 3) == []


def test_batch_instances_leave_together_when_nothing_waits():
    here = [report(0, 50, 3, urgent=1), report(1, role=BATCH), report(2, 9, 1, role=BATCH)]
    assert started(here) == [Drain(1), Drain(2)]
    assert started([*here[:2], report(2, 9, 1, 1, role=BATCH)]) == [], "somebody waits there"
    assert started(here, starting=(BATCH,)) == []
    assert started(here[1:]) == [] == started([report(0, terminating=True), *here[1:]]), "somebody must be left"
    assert started([*here[:2], report(2, role=BATCH, terminating=True)]) == [Drain(1)]


def test_the_two_loops_do_not_count_each_others_instances():
    rule = SLODebt(theta=0.6, band=0.15, most=3)
    busy = [report(n, 9, 1, urgent=1) for n in range(2)]
    batch = [report(n, 9, 1, 1, role=BATCH) for n in range(2, 5)]
    assert rule.decide([*busy, *batch], Observed(starting=(BATCH,)), NOW) == [ScaleUp(1, "", MIXED)]
    assert rule.decide([*busy, *batch], Observed(starting=("",)), NOW) == []


# ---- the watch -------------------------------------------------------------------------------------------------------


def test_a_watch_counts_arrivals_in_its_window_and_its_bins():
    watch = Watch(window=10.0, bin=5.0)
    for n, time in enumerate((0.0, 1.0, 6.0, 6.5, 21.0)):
        watch.asked(ask(id=str(n), arrival=time), time)
    seen = watch.observed(21.0)
    assert seen.arrivals == 0.1 and seen.history == (0.4, 0.4, 0.0, 0.0), "the bin that is not over does not count"
    assert watch.observed(40.0).history == (0.4, 0.4, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0)
    early = Watch(window=60.0)
    early.asked(ask(id="a", arrival=2.0), 2.0)
    assert early.observed(4.0).arrivals == 0.25, "4 seconds are all there are"
    first = Watch()
    first.asked(ask(id="a", arrival=0.0), 2.0)
    assert first.observed(3.0).longest_wait == 3.0, "it came at 0, and was sent on at 2"


def test_a_watch_knows_who_was_late_and_who_waits():
    here, watch = Instance(0, engine(max_running=2)), Watch(window=100.0)
    promised = {"a": 1.0, "b": 4.0, "c": 2.0, "d": None, "e": 50.0}
    for name, ttft in promised.items():
        slo = None if ttft is None else SLO(ttft=ttft)
        watch.asked(here.engine.add(Request([1, 2, 3], ask().sampling, name, 0.0, slo=slo)), 0.0)
    here.engine.clock.advance_to(3.0)
    here.engine.step()
    first = here.engine.clock.now
    watch.look([here])
    watch.look([here])
    seen = watch.observed(first)
    assert seen.ttfts == (first, first) and seen.longest_wait == first
    assert seen.late == pytest.approx(2 / 3), "of a, b and c, which waits still; e may be in time"
    here.engine.abort("c")
    here.engine.abort("a")
    watch.look([here])
    assert watch.observed(first).late == 1 / 2 and watch.observed(first).ttfts == (first, first)
    watch.gone("d")
    watch.gone("e")
    assert watch.observed(first).longest_wait == 0.0
    assert watch.observed(first + 101.0).ttfts == () and watch.observed(first + 101.0).late == 0.0


def test_a_watch_waits_for_every_answer_and_measures_from_the_arrival():
    here, watch = Instance(0, engine()), Watch()
    request = Request([1, 2, 3], ask().sampling, "x", 1.0)
    object.__setattr__(request, "sampling", replace(request.sampling, n=2))
    here.engine.clock.advance_to(5.0)
    watch.asked(here.engine.add(request), 5.0)
    while not all(each.num_output for each in here.engine.requests.values()):
        here.engine.step()
    watch.look([here])
    seen = watch.observed(6.0)
    assert len(seen.ttfts) == 2 and min(seen.ttfts) > 4.0 and seen.longest_wait == 0.0
