"""Fleets that grow and shrink: decisions by property, hundreds of random lives, and the books."""

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.cluster import Drain, Freeness, LoadReport, Rebalance, Reporting, RoundRobin, ScaleUp, VirtualDriver
from llmcourse.cluster.autoscale import (
    AUTOSCALERS,
    Autoscaler,
    BatchSize,
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
from llmcourse.cluster.roles import BATCH, MIXED, ByRole
from llmcourse.engine import Engine, EventKind
from llmcourse.errors import UserError
from llmcourse.metrics.hardware import hardware
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.rental import Lease, most_at_once, rent
from llmcourse.workload import SLO, Lognormal, OnOff, Poisson, merge, open_loop
from tests.cluster.test_decisions import fleets
from tests.cluster.worlds import DRIVERS, Life, Noted, ask, cluster, finish

LIVES = 150                              # of each driver
SCALERS = [Reactive(), QueueBased(), KVBased(), Predictive(rate=2.0, season=300.0, before=(1.0, 3.0, 9.0, 4.0, 2.0)),
           SLODebt()]


def report(number, used=0, running=0, waiting=0, urgent=0, role="", terminating=False):
    return LoadReport(number, 0.0, 100, 16, running, waiting, used, waiting * 10, 10 if waiting else 0,
                      used + (10 if waiting else 0), 0, 0, terminating, False, urgent, role)


# -- what is decided ---------------------------------------------------------------------------------------------------


@st.composite
def moments(draw):
    times = st.floats(-200, 0)
    return Observed(arrivals=draw(st.floats(0, 50)), history=tuple(draw(st.lists(st.floats(0, 40), max_size=6))),
                    longest_wait=draw(st.floats(0, 20)), late=draw(st.floats(0, 1)),
                    starting=tuple(draw(st.lists(st.sampled_from(("", MIXED, BATCH)), max_size=3))),
                    held=tuple(Held(draw(st.integers(1, 64)), draw(st.floats(0, 500)))
                               for _ in range(draw(st.integers(0, 3)))),
                    last_up=draw(times), last_down=draw(times))


@given(st.lists(st.sampled_from(("", MIXED, BATCH)), min_size=8, max_size=8), fleets(), moments(),
       st.sampled_from(SCALERS), st.integers(1, 4), st.integers(0, 8))
@settings(max_examples=400)
def test_bounds_and_rests_are_kept_whatever_is_seen(roles, fleet, observed, scaler, fewest, more):
    fleet = [each._replace(role=role) for each, role in zip(fleet, roles, strict=False)]
    scaler = replace(scaler, fewest=fewest, most=fewest + more)
    decisions = scaler.decide(fleet, observed, 0.0)
    assert decisions == scaler.decide(list(fleet), observed, 0.0), "the same question has two answers"
    ups = [each for each in decisions if isinstance(each, ScaleUp)]
    downs = {each.instance for each in decisions if isinstance(each, Drain)}
    kind = {each.instance: each.role for each in fleet}
    assert downs <= {each.instance for each in fleet if not each.terminating}
    assert len(downs) + len(ups) == len(decisions)
    batch = isinstance(scaler, SLODebt)
    counted = [each for each in fleet if not (batch and each.role == BATCH)]
    starting = [role for role in observed.starting if not (batch and role == BATCH)]
    takes = [each for each in counted if not each.terminating]
    added = sum(up.count for up in ups if up.role != BATCH)
    gone = [number for number in downs if not (batch and kind[number] == BATCH)]
    have = len(takes) + len(starting)
    assert all(up.count > 0 for up in ups)
    assert not added or len(counted) + len(starting) + added <= scaler.most
    assert not gone or have - len(gone) >= scaler.fewest
    if added and have >= scaler.fewest:
        assert -observed.last_up >= scaler.up_after and have + added <= scaler.most
    if gone:
        assert -max(observed.last_up, observed.last_down) >= scaler.down_after and not starting


def simulate(scaler, load_at, seconds=1200, cold=10.0, period=1.0):
    """A fleet on paper: the load (in instances' worth of memory) is spread evenly. Returns the changes: time, up."""
    ready, last_up, last_down, changes = [0.0], -1e9, -1e9, []
    history = []
    for tick in range(int(seconds / period)):
        now = tick * period
        if tick % 60 == 0 and tick:
            history.append(load_at(now - 60) * 4)
        here = [number for number, time in enumerate(ready) if time <= now]
        share = load_at(now) / len(here)
        running = round(20 * min(1, share))
        waiting = max(0, int(20 * (share - 1)))
        fleet = [report(number, int(100 * min(1, share)), running, waiting, running) for number in here]
        seen = Observed(arrivals=load_at(now) * 4, history=tuple(history), longest_wait=waiting / 5,
                        starting=("",) * (len(ready) - len(here)), last_up=last_up, last_down=last_down)
        for decision in scaler.decide(fleet, seen, now):
            if isinstance(decision, ScaleUp):
                ready += [now + cold] * decision.count
                last_up = now
                changes.append((now, decision.count))
            else:
                ready.remove(max(time for time in ready if time <= now))
                last_down = now
                changes.append((now, -1))
    return changes, len(ready)


@pytest.mark.parametrize("name", sorted(set(AUTOSCALERS) - {"slo-debt"}))
@given(st.integers(0, 10_000), st.floats(0.5, 6), st.floats(0, 0.15))
@settings(max_examples=15, deadline=None)
def test_noise_does_not_make_a_fleet_flap(name, seed, level, noise):
    """Noise around a level turns the fleet round twice at most, on its way there, and nothing changes fast."""
    dice = random.Random(seed)
    values = [level * (1 + noise * dice.uniform(-1, 1)) for _ in range(1300)]
    scaler = AUTOSCALERS[name]()
    changes, _ = simulate(scaler, lambda now: values[int(now)])
    for (before, change), (after, then) in pairwise(changes):
        assert after - before >= (scaler.down_after if then < 0 else scaler.up_after if change > 0 else 0)
    turns = sum((change > 0) != (then > 0) for (_, change), (_, then) in pairwise(changes))
    assert turns <= 2, f"it turned round {turns} times: {changes}"


@pytest.mark.parametrize("scaler", [Reactive(), QueueBased(), KVBased()])
def test_a_fleet_follows_its_load_up_and_down(scaler):
    changes, left = simulate(scaler, lambda now: 5.0 if now < 600 else 0.5, 2400)
    peak = 1 + sum(change for now, change in changes if now < 600)
    assert peak >= 4 and left <= peak / 2


def test_a_forecast_is_there_before_the_load_is():
    day = (1.0, 1.0, 8.0, 8.0, 1.0, 1.0)                     # a bin is 60 s, a season 360 s
    scaler = Predictive(2.0, 360.0, day, lead=30.0, guard=None, margin=0.0)
    assert scaler.forecast(Observed(), 10.0) == 1.0 and scaler.forecast(Observed(), 40.0) == 8.0
    assert Predictive(2.0, 360.0).forecast(Observed(), 0.0) is None
    later = Observed(history=(3.0,) * 6)                      # from the second day on it has seen for itself
    assert scaler.forecast(later, 361.0) == 3.0
    assert scaler.decide([report(0)], Observed(), 40.0) == [ScaleUp(3, "")]
    guarded = Predictive(2.0, 360.0, (0.1,) * 6, guard=0.5)
    assert guarded.decide([report(0, used=80, running=5)], Observed(), 40.0) == [ScaleUp(1, "")]


def test_batch_instances_are_as_few_and_as_late_as_possible():
    scaler = SLODebt(output=100.0, throughput=640.0, lead=10.0, most_batch=8)
    fleet = [report(0, running=3, urgent=3), report(1, role=MIXED)]
    held = tuple(Held(64, 1000.0) for _ in range(10))         # 64,000 tokens: 100 s on one instance
    spare = [ScaleUp(1, "", BATCH)]
    assert scaler.decide(fleet, Observed(held=held), 0.0) == []         # the mixed one has them done in time
    assert scaler.decide(fleet[:1], Observed(held=held), 0.0)[-1:] == spare
    tight = tuple(Held(64, 40.0) for _ in range(10))
    up = [each for each in scaler.decide(fleet, Observed(held=tight), 0.0) if isinstance(each, ScaleUp)]
    assert up == [ScaleUp(3, "", BATCH)]                      # 64,000 / (30 s x 640/s) = 3.3, and one is mixed
    busy = [*fleet, report(2, role=BATCH), report(3, role=BATCH, running=5)]
    assert {each.instance for each in scaler.decide(busy, Observed(), 1e3) if isinstance(each, Drain)} == {2, 3}


def test_interactive_pressure_keeps_spare_instances():
    scaler = SLODebt(theta=0.6, band=0.15)
    busy, idle = [report(i, running=4, urgent=4) for i in range(3)], [report(i, role=MIXED) for i in range(3, 9)]
    assert scaler.decide(busy, Observed(), 0.0) == [ScaleUp(2, "", MIXED)]
    assert scaler.decide([*busy, *idle[:2]], Observed(), 0.0) == []
    assert scaler.decide([*busy, *idle], Observed(), 0.0) == [Drain(8)]


@given(st.floats(0.02, 0.4), st.floats(0.0005, 0.01), st.integers(1, 64))
def test_a_batch_grows_to_what_keeps_the_promise(promise, per_request, size):
    """ITL and throughput of a machine that takes 10 ms a step and a little more for each request."""
    batch, seen = BatchSize(promise, size, most=256), []
    for _ in range(250):
        itl = 0.01 + per_request * batch.size
        seen.append(batch.size)
        batch = batch.next(itl, batch.size / itl)
    best = min(256, max(1, int((promise - 0.01) / per_request)))
    rate = {size: size / (0.01 + per_request * size) for size in (best, max(seen[8:]))}
    assert max(seen[8:]) <= 2 * best + 2 and min(seen) >= 1
    assert rate[max(seen[8:])] >= 0.8 * rate[best], "more would have paid, and been in time"


def test_what_is_no_fleet_is_refused():
    for make in (lambda: Reactive(fewest=0), lambda: KVBased(most=0), lambda: Reactive(0.3, 0.7), lambda: KVBased(5, 0),
                 lambda: SLODebt(theta=0), lambda: ColdStart(tier="tape"), lambda: BatchSize(0.0),
                 lambda: Predictive(rate=0.0), lambda: QueueBased(up_after=-1)):
        with pytest.raises(UserError) as error:
            make()
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="build="):
        VirtualDriver([Engine.simulated()], autoscaler=Reactive())
    with pytest.raises(UserError, match="migrate, wait"):
        cluster(scaling={"drain_by": "asking"})


# -- lives -------------------------------------------------------------------------------------------------------------


class Whim(Autoscaler):
    """Wants anything at any time."""

    def wanted(self, reports, observed, now):
        return random.Random(f"{now} {len(reports)}").randint(self.fewest, self.most)


class Growing(Life):
    """A life in which instances come and go too; under Chiron's rule requests of the second class may have to wait."""

    def __init__(self, seed, driver):
        super().__init__(seed, driver)
        if isinstance(self.driver.fleet.autoscaler.scaler, SLODebt):
            self.driver.scheduler.dispatch = Noted(ByRole(seats=2, spare=0.1, batch_seats=4))

    def scaling(self, dice):
        rests = {"fewest": dice.randint(1, 2), "most": dice.randint(2, 5), "up_after": dice.choice((0.0, 0.05, 0.2)),
                 "down_after": dice.choice((0.0, 0.1, 0.3))}
        kind = dice.choice((Whim, Whim, Reactive, QueueBased, KVBased, SLODebt))
        scaler = KVBased(2.0, 4.0, **rests) if kind is KVBased else QueueBased(0.02, **rests) if kind is QueueBased \
            else kind(**rests)
        cold = ColdStart(boot=dice.choice((0.0, 0.05, 0.2)), warm=dice.randint(0, 1))
        return {"autoscaler": Noting(scaler), "cold_start": cold, "drain_by": dice.choice(("migrate", "wait"))}

    def _drain(self):
        """That is the autoscaler's business here."""


class Noting:
    """Writes down what an autoscaler has decided, and when."""

    def __init__(self, scaler):
        self.scaler, self.machines, self.decided = scaler, scaler.machines, []

    def decide(self, reports, observed, now):
        decisions = self.scaler.decide(reports, observed, now)
        self.decided += [(now, each) for each in decisions]
        return decisions


def first(driver):
    """Numbers of the instances that this driver has found: books tell of those too that had ended before."""
    gone = {event.instance for event in driver.log
            if event.data.get("stage") == "retired" or event.kind is EventKind.FAULT}
    found = {number for number, lease in driver.fleet.leases.items() if lease.ended is None or number in gone}
    return found - {event.instance for event in driver.log if event.data.get("stage") == "starting"}


def lines(driver):
    """How many were paid for, and how many took requests or were starting, after each change: from the log alone."""
    paid = first(driver)
    serving, shown = set(paid), []
    for event in driver.log:
        stage = event.data.get("stage") if event.kind is EventKind.SCALED else None
        number = event.data.get("instance")
        if stage == "starting":
            paid.add(number), serving.add(number)
        elif stage == "draining":
            serving.discard(number)
        elif stage == "retired" or event.kind is EventKind.FAULT:
            paid.discard(number), serving.discard(number)
        else:
            continue
        shown.append((event.time, stage or "died", len(paid), len(serving)))
    return shown


@pytest.mark.parametrize("driver", DRIVERS)
def test_random_lives_of_growing_fleets(driver):
    happened, stages = Counter(), Counter()
    for seed in range(LIVES):
        life = Growing(seed, driver).live(90)
        happened.update(life.happened)
        for each in (*life.past, life.driver):
            check_books(each)
        decided = Counter()
        for now, decision in life.driver.fleet.autoscaler.decided:
            up = isinstance(decision, ScaleUp)
            decided[now, "starting" if up else "draining"] += decision.count if up else 1
        done = Counter((event.time, event.data["stage"]) for each in (*life.past, life.driver) for event in each.log
                       if event.data.get("stage") in ("starting", "draining"))
        assert done == decided, "the fleet changes when that is decided, and then only"
        for number, instance in life.driver.instances.items():
            lease = life.driver.fleet.leases[number]
            assert instance.alive == (lease.ended is None) and lease.how in ("", "died", "retired")
            assert lease.how != "retired" or instance.engine.idle
            stages.update(event.data["stage"] for event in each.log if event.kind is EventKind.SCALED)
    print(f"{LIVES} lives: {dict(happened)}; {dict(stages)}")
    assert min(stages[stage] for stage in ("starting", "ready", "draining", "retired")) > LIVES, stages
    assert min(happened[what] for what in ("kills", "aborts", "migrations", "recoveries")) > LIVES / 3, happened


def check_books(driver):
    """Bounds and rests as the log tells them, and what is paid for is what was there."""
    scaler, log = driver.fleet.autoscaler.scaler, lines(driver)
    most = max(scaler.machines, len(first(driver)))
    assert all(paid <= most for _, _, paid, _ in log), log
    starts = [time for time, stage, _, _ in log if stage == "starting"]
    deaths = [time for time, stage, _, _ in log if stage == "died"]
    drains = [time for time, stage, _, _ in log if stage == "draining"]
    if not isinstance(scaler, SLODebt):                       # whose two loops rest each by itself
        for before, after in pairwise(sorted(set(starts))):
            assert after - before >= scaler.up_after - 1e-9 or any(time <= after for time in deaths), log
        for time in drains:
            assert not any(0 < time - change < scaler.down_after - 1e-9 for change in {*starts, *drains}), log
        assert all(serving >= scaler.fewest for _, stage, _, serving in log if stage == "draining"), log
    for lease in driver.fleet.leases.values():
        assert lease.ready is None or lease.ready >= lease.started
        assert lease.ended is None or lease.ended >= lease.started


def test_who_is_drained_by_waiting_keeps_its_requests_and_is_not_dead():
    for how, moved in (("wait", False), ("migrate", True)):
        driver = cluster("virtual", 2, num_blocks=64, reporting=Reporting(0.01), dispatch=Freeness(),
                         scaling={"autoscaler": Reactive(fewest=1, most=2, down_after=0.05), "drain_by": how})
        requests = [driver.add(ask((1, 2, i), 60 - 45 * i)) for i in range(2)]
        finish(driver)
        gone = [lease for lease in driver.fleet.leases.values() if lease.how == "retired"]
        assert len(gone) == 1 and driver.fleet.leases[gone[0].number].drained <= gone[0].ended
        assert any(move.outcome == "moved" for move in driver.migrations) == moved
        assert all(driver.gateway.streams[request.id].reason == "length" for request in requests)


def test_who_is_drained_by_waiting_takes_part_in_no_migration():
    """It ends by itself, and must not keep the richest instance from who is too full meanwhile."""
    driver = cluster("virtual", 3, num_blocks=40, max_running=16, token_budget=64, dispatch=RoundRobin(),
                     rebalance=Rebalance(3.0, rest=0.0), reporting=Reporting(0.01), scaling={"drain_by": "wait"})
    for number in range(3):                                   # the poor one has ten, the others one each
        for place in range(10 if number == 1 else 1):
            driver.instances[number].engine.add(ask((1, 2, 3), 50, id=f"{number} {place}"))
    driver.drain(0)
    driver.go_to(0.3)
    moves = {(move.source, move.destination) for move in driver.migrations}
    assert moves == {(1, 2)}


def test_a_fleet_in_events_and_in_a_ledger_is_the_same_fleet():
    told = []
    for kept in (None, Ledger()):
        def build(kept=kept):
            return Engine.simulated("Llama 2 7B", "A10", num_blocks=420, ledger=kept)
        driver = VirtualDriver([build()], Freeness(), Rebalance(), reporting=Reporting(0.5), build=build,
                               autoscaler=QueueBased(most=5, down_after=20.0), cold_start=ColdStart.of(boot=2.0))
        table = driver.run(open_loop(OnOff(4.0, 20.0, 20.0), Lognormal(400, p99=2000), Lognormal(100, p99=400), 200, 1))
        assert table.finished.all()
        told.append([event for event in driver.log if event.kind is EventKind.SCALED])
        driver.fleet.watch.window = 1e9
        driver.fleet.watch.look(driver.instances.values())
        seen = driver.fleet.watch.observed(driver.now)
        assert seen.longest_wait == 0 and sum(seen.history) * seen.bin <= 200
        for lease in list(driver.fleet.leases.values())[1:]:
            assert lease.ready is None or lease.ready - lease.started == pytest.approx(ColdStart.of(boot=2.0).seconds())
    assert told[0] == told[1] and len(told[0]) > 8


def test_one_loop_does_not_rest_after_the_changes_of_the_other():
    """A batch instance is started at 0.5 s and drained at 1.0 s; the fleet of who cannot wait has not changed."""
    driver = VirtualDriver([Engine.simulated(num_blocks=420)], Freeness(), None, reporting=Reporting(0.5),
                           build=lambda: Engine.simulated(num_blocks=420), autoscaler=KVBased())
    fleet, seen = driver.fleet, []
    plan = {0.5: [ScaleUp(1, role=BATCH)], 1.0: [Drain(1)], 1.5: [ScaleUp(1, role=MIXED)], 2.0: [Drain(2)]}

    class Planned:
        def decide(self, reports, observed, now):
            seen.append((now, observed.last_up, observed.last_down))
            return plan.get(now, [])

    fleet.autoscaler, never = Planned(), float("-inf")
    driver.go_to(2.5)
    assert seen == [(0.0, never, never), (0.5, never, never), (1.0, never, never), (1.5, never, never),
                    (2.0, 1.5, never), (2.5, 1.5, 2.0)]


def test_who_can_wait_waits_in_front_and_is_served():
    def build():
        return Engine.simulated("Llama 2 7B", "A10", num_blocks=420)
    driver = VirtualDriver([build()], ByRole(seats=4), None, reporting=Reporting(0.5), build=build,
                           autoscaler=SLODebt(output=50.0, throughput=300.0, lead=5.0), cold_start=ColdStart(boot=5.0))
    urgent = open_loop(Poisson(0.5), Lognormal(200, p99=800), Lognormal(50, p99=100), 30, 0, slo=SLO(2.0))
    later = open_loop(Poisson(100.0), Lognormal(200, p99=800), Lognormal(50, p99=100), 150, 1, slo=SLO(60.0),
                      priority=1)
    held = []
    table = driver.run(merge(urgent, later), progress=lambda _: held.append(len(driver.fleet.held)))
    assert table.finished.all() and len(table) == 180 and not driver.fleet.held
    roles = Counter(lease.role for lease in driver.fleet.leases.values())
    assert roles[BATCH] >= 1
    driver.check_invariants()
    request = driver.add(ask((1, 2, 3), 5, priority=1))
    if request in driver.fleet.held:
        driver.abort(request.id)
        assert driver.gateway.streams[request.id].reason == "abort" and driver.idle


def test_who_cannot_wait_does_not_stand_behind_who_can_in_front_of_the_fleet():
    """Nobody is there when they come; the one that starts takes a request of the second class when it is idle."""
    driver = cluster("virtual", 1, num_blocks=64, dispatch=ByRole(), reporting=Reporting(0.01),
                     scaling={"autoscaler": Reactive(most=1), "cold_start": ColdStart(boot=0.1)})
    driver.kill(0)
    later = [driver.add(ask((1, 2, n), 40, priority=1)) for n in range(3)]
    urgent = [driver.add(ask((3, 2, n), 4)) for n in range(2)]
    assert driver.fleet.held == later + urgent
    finish(driver)
    begun = [event.request for event in driver.events if event.kind is EventKind.SCHEDULED]
    assert begun == [request.id for request in (*urgent, *later)]


def test_a_watch_sees_what_users_felt():
    for kept in (None, Ledger()):
        engines = [Engine.simulated("Llama 2 7B", "A10", num_blocks=420, ledger=kept) for _ in range(2)]
        driver = VirtualDriver(engines, Freeness(), Rebalance(), reporting=Reporting(0.5),
                               autoscaler=KVBased(fewest=2, most=2), build=lambda: None)
        driver.fleet.watch = Watch(window=1e9)
        workload = open_loop(Poisson(3.0), Lognormal(400, p99=2000), Lognormal(100, p99=400), 100, 1, slo=SLO(ttft=0.5))
        table = driver.run(workload)
        seen = driver.fleet.observed()
        assert sorted(seen.ttfts) == pytest.approx(sorted(table["ttft"]))
        assert seen.late == pytest.approx((table["ttft"] > 0.5).mean()) and seen.longest_wait == 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_who_joins_before_anybody_has_reported_is_not_the_only_one_there_is(driver):
    both = cluster(driver, dispatch=RoundRobin(), scaling={"cold_start": ColdStart(boot=0.1)})
    both.fleet.start()
    if driver == "virtual":
        both.go_to(0.5)
    while len(both.alive) < 3:
        both.advance(0.5)
    for n in range(6):
        both.add(ask((1, 2, n)))
    assert [both.owner(f"r{n}") for n in range(6)] == [0, 1, 2] * 2


# -- the books ---------------------------------------------------------------------------------------------------------


def test_a_machine_is_paid_from_its_start_to_its_end():
    leases = [Lease(0, 0.0, 0.0), Lease(1, 100.0, 130.0, 700.0, 820.0), Lease(2, 820.0, None)]
    bill = rent(leases, 1000.0, hardware("A10"), busy_seconds=900.0, warm=1)
    assert bill.instance_hours == pytest.approx((1000 + 720 + 180 + 1000) / 3600)
    assert bill.dollars == pytest.approx(0.75 * bill.instance_hours)
    assert bill.joules == pytest.approx(150 * (900 + 0.15 * 2000))
    assert bill.most == 3 and most_at_once(leases, 1000.0) == 2
    with pytest.raises(UserError, match="same time"):
        rent(leases, 1000.0, busy_seconds=5000.0)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=12), st.floats(0, 200))
def test_the_most_at_once_is_the_most_at_any_moment(spans, until):
    leases = [Lease(number, start, start, ended=start + length) for number, (start, length) in enumerate(spans)]
    times = [lease.started for lease in leases if lease.started <= until]
    expected = max((sum(each.started <= time < each.ended for each in leases) for time in times), default=0)
    assert most_at_once(leases, until) == expected


def test_a_warm_machine_skips_the_boot():
    cold = ColdStart(weights=10e9, boot=15.0, tier="ssd", warm=1)
    pool = WarmPool(cold)
    assert cold.seconds() == 17.0 and cold.seconds("remote") == 23.0 and cold.load("dram") == 0.5
    assert [pool.ready(now) for now in (5.0, 6.0, 19.0, 20.0)] == [7.0, 23.0, 36.0, 22.0]


@pytest.mark.parametrize(("make", "said"), [
    (lambda: KVBased(least="x"), "least is 'x'; it takes a number"), (lambda: QueueBased(full="x"), "full is 'x'"),
    (lambda: Predictive(margin="x"), "margin is 'x'"), (lambda: SLODebt(most_batch="x"), "most_batch is 'x'"),
    (lambda: Reactive(most="x"), "most is 'x'"), (lambda: QueueBased(queue=0), "at least 1 request")])
def test_options_that_mean_nothing_are_refused_before_anything_runs(make, said):
    with pytest.raises(UserError, match=said):
        make()
