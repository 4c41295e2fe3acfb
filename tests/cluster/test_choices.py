"""Who goes where, by worked examples and against the engine itself: reports, candidates, dispatchers, pairs, roles."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.cluster import (
    Freeness,
    GlobalScheduler,
    LeastRequests,
    LeastTokens,
    LoadReport,
    Migrate,
    PowerOfTwo,
    PrefixAware,
    Random,
    Rebalance,
    Reporting,
)
from llmcourse.cluster.board import Board
from llmcourse.cluster.instance import Instance
from llmcourse.cluster.report import report_of
from llmcourse.cluster.roles import BATCH, MIXED, ByRole
from llmcourse.engine.snapshot import Snapshot
from llmcourse.errors import UserError
from tests.cluster.worlds import ask, cluster, engine, finish


def steps(instance, count):
    for _ in range(count):
        instance.engine.step()
    return instance


# ---- what is reported ------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 5), max_size=6), st.integers(1, 8), st.integers(0, 3))
def test_what_is_foretold_is_what_will_be_reported(lengths, length, taken):
    """Whole blocks: of prompts that end within one the sum is told a little too high."""
    here = Instance(0, engine(num_blocks=60, max_running=2))
    for blocks in lengths:
        here.engine.add(ask([1] * 4 * blocks, 3))
    report = steps(here, taken).report()
    here.engine.add(ask([2] * 4 * length, 3))
    assert report.with_one_more(4 * length) == here.report()


def test_a_report_by_hand():
    here = Instance(5, engine(num_blocks=40, max_running=3), {0: 10.0, 1: 3.0, 2: 100.0})
    here.role, here.busy = MIXED, True
    for n, (length, priority) in enumerate(((8, 0), (9, 0), (7, 1), (14, -1), (5, 2))):
        here.engine.add(ask([n + 1] * length, 20, priority=priority))
    report = steps(here, 3).report()                          # 24 tokens of prompts: after two steps of 16 three decode
    used = here.engine.pool.num_used
    assert (report.running, report.waiting, report.requests, report.urgent) == (3, 2, 5, 2)
    assert used == 3 + 3 + 2 and report.used_blocks == used and report.free_blocks == 32
    assert (report.head_blocks, report.waiting_blocks, report.backlog_tokens) == (4, 5, 14 + 5 + 3)
    assert report.virtual_blocks == 8 + 10 + 3 + 4, "headroom once for each priority that runs, and the head"
    assert report.freeness == pytest.approx(15 / 3) and report.dispatch_freeness == pytest.approx(14 / 5)
    assert (report.busy, report.role, report.terminating, report.instance) == (True, MIXED, False, 5)
    assert LoadReport(0, 0.0, 40, 4).freeness == LoadReport(0, 0.0, 40, 4).dispatch_freeness == 40
    assert LoadReport(0, 0.0, 40, 4).with_one_more(5).waiting_blocks == 2, "a part is a block too"
    leaving = report._replace(terminating=True)
    assert leaving.freeness == leaving.dispatch_freeness == float("-inf")


def test_who_gave_way_is_reported_with_all_it_must_compute_again():
    here = Instance(0, engine(num_blocks=6))
    for n in (1, 2):
        here.engine.add(ask([n] * 8, 9))
    while not here.report().preempted:
        here.engine.step()
    [waits] = here.engine.scheduler.waiting
    assert len(waits.tokens) == 13 and here.report().head_blocks == here.report().waiting_blocks == 4
    assert here.report().preempted == 1


def test_who_waits_with_its_kv_needs_only_what_it_has_not():
    """Parked, it holds its blocks; in host memory it needs all of them, though one token is to be computed."""
    for parking in (True, False):
        here = Instance(0, engine(num_blocks=60, max_running=1, swap=not parking, parking=parking))
        if not parking:
            here.engine.scheduler.policy.preemptive, here.engine.scheduler.policy.static = True, False
            here.engine.scheduler.policy.key = lambda request, now: request.sampling.max_tokens
        waits = here.engine.add(ask([1] * 15, 30))
        steps(here, 3)
        here.engine.add(ask([2] * 3, 5))
        steps(here, 1)
        assert waits in here.engine.scheduler.waiting and (waits in here.engine.scheduler.parked) == parking
        report, pool, runs = here.report(), here.engine.pool, here.engine.scheduler.running[0]
        held = len(pool.table(waits.id))
        assert held == (5 if parking else 0) and len(waits.tokens) == 18
        assert report.used_blocks == held + len(pool.table(runs.id))
        assert report.head_blocks == 5 - held == report.virtual_blocks - report.used_blocks
        assert report.waiting_blocks >= report.head_blocks
        more = here.engine.add(ask([3] * 8, 60))              # behind it in the queue
        assert here.report().waiting_blocks >= 5 - held + pool.blocks_for(len(more.tokens))


def test_who_gave_up_its_seat_and_kept_its_blocks_is_no_sign_of_a_full_memory():
    here = Instance(0, engine(num_blocks=60, max_running=1, parking=True))
    parked = here.engine.add(ask([1] * 15, 30, predicted=30.0))
    steps(here, 3)
    here.engine.add(ask([2] * 3, 5, predicted=5.0))
    steps(here, 1)
    assert parked in here.engine.scheduler.parked and here.report().preempted == 0
    rich, poor = LoadReport(1, 0.0, 100, 16), LoadReport(2, 0.0, 100, 16, 10, 0, 95, virtual_blocks=95)
    assert [pair.destination for pair in Rebalance().pairs([here.report(), poor, rich._replace(busy=True)])] == [0]


def test_who_stands_behind_a_sibling_waits_too():
    here = Instance(0, engine())
    request = ask([1, 2, 3], 4)
    object.__setattr__(request.sampling, "n", 3)
    here.engine.add(request)
    assert report_of(here.engine, 0, {}).waiting == 3


def test_who_has_ended_lives_nowhere_and_is_told_once():
    here = Instance(0, engine())
    ended, given_up, lives = (here.engine.add(ask([n + 1], length)) for n, length in enumerate((1, 20, 20)))
    steps(here, 2)
    here.engine.abort(given_up.id)
    assert [snapshot.id for snapshot in here.residents()] == [lives.id]
    assert here.owns(lives.id) and not here.owns(ended.id) and not here.owns(given_up.id) and not here.owns("x")
    heard = here.hear()
    ends = [(each.request_id, each.reason) for each in heard if each.reason]
    assert ends == [(ended.id, "length"), (given_up.id, "abort")]
    assert sum(len(each.tokens) for each in heard) == 1 + 2 + 2 and here.hear() == []
    steps(here, 2)
    here.stop(lives.id)
    here.release(lives.id)                                    # gone, and its last tokens are still to be sent
    assert [(each.position, len(each.tokens)) for each in here.hear()] == [(2, 2)]


# ---- who should go ---------------------------------------------------------------------------------------------------


def test_who_waits_goes_first_then_who_matters_least_then_the_shortest():
    here = Instance(0, engine(num_blocks=60, max_running=4))
    long, short, first, least = [here.engine.add(ask([1] * length, 30, priority=priority))
                                 for length, priority in ((4, 1), (3, 1), (2, 0), (5, 2))]
    assert steps(here, 3).candidate(99) == least.id and min(each.num_output for each in here.engine.requests.values())
    waits = here.engine.add(ask([1] * 4, 30))
    assert here.candidate(99) == waits.id and here.candidate(99, waiting=False) == least.id
    here.engine.abort(waits.id), here.engine.abort(least.id)
    assert here.candidate(99) == short.id, "of equals the one with least to carry"
    here.engine.abort(short.id)
    assert here.candidate(99) == long.id
    here.engine.abort(long.id)
    assert here.candidate(99) == first.id


def test_what_is_too_much_to_carry_stays():
    here = Instance(0, engine(num_blocks=60))
    request = here.engine.add(ask([1] * 7, 30))
    steps(here, 1)
    assert len(request.tokens) == 8                           # two blocks, and one more that it fills on its way
    assert here.candidate(3) == request.id and here.candidate(2) is None
    steps(here, 1)
    assert here.candidate(3) is None


def test_a_prompt_half_computed_goes_only_from_where_all_must_go():
    here = Instance(0, engine(num_blocks=60, token_budget=8))
    decodes, half = here.engine.add(ask([1] * 20, 30)), here.engine.add(ask([1] * 40, 30))
    steps(here, 4)
    assert decodes.pending == 1 and 0 < half.computed < decodes.computed and half.pending > 1
    assert here.candidate(99) == decodes.id
    here.terminating = True
    assert here.candidate(99) == decodes.id, "who decodes goes before who is computed"
    here.engine.abort(decodes.id)
    assert here.candidate(99) == half.id
    here.terminating = False
    assert here.candidate(99) is None


def test_who_waits_goes_from_where_all_must_go_whatever_the_rule_says():
    here = Instance(0, engine(num_blocks=60, max_running=1))
    runs, waits = here.engine.add(ask([1, 2], 30)), here.engine.add(ask([1] * 20, 30))
    steps(here, 2)
    assert here.candidate(99, waiting=False) == runs.id
    assert here.candidate(5, waiting=True) == runs.id, "the first of the waiting is too long"
    here.terminating = True
    assert here.candidate(99, waiting=False) == waits.id


def test_who_has_just_come_rests():
    here = Instance(0, engine(num_blocks=60))
    here.engine.clock.advance_to(2.0)
    here.adopt(Snapshot("x", (1, 2, 3), ask(max_tokens=30).sampling, 0.0))
    assert here.candidate(99, rest=1.0) is None and here.candidate(99, rest=1.0, waiting=False) is None
    here.engine.clock.advance_to(2.75)
    steps(here, 1)
    assert here.candidate(99, rest=1.0) is None
    here.engine.clock.advance_to(3.0)
    assert here.candidate(99, rest=1.0) == "x"


def test_answers_to_one_prompt_are_no_candidates():
    here = Instance(0, engine(num_blocks=60))
    request = ask([1, 2, 3], 20)
    object.__setattr__(request.sampling, "n", 2)
    here.engine.add(request)
    assert here.candidate(99) is None
    assert steps(here, 3).candidate(99) is None and here.engine.scheduler.running


# ---- dispatch --------------------------------------------------------------------------------------------------------


def fleet(*loads):
    return [LoadReport(number, 0.0, 100, 16, running) for number, running in enumerate(loads)]


def test_a_draw_is_the_seeds_own():
    reports = fleet(*range(20))
    for kind in (Random, PowerOfTwo):
        drawn = [[kind(seed).choose(ask(), number, reports) for number in range(30)] for seed in (0, 0, 1)]
        assert drawn[0] == drawn[1] != drawn[2]
    by_size = PowerOfTwo(load=lambda report: -report.running)
    assert all(by_size.choose(ask(), n, fleet(0, 9)) == 1 and PowerOfTwo().choose(ask(), n, fleet(0, 9)) == 0
               for n in range(9))


def test_tokens_in_blocks_and_tokens_to_come_are_added():
    """160 + 0, 32 + 100 and 0 + 170 tokens."""
    reports = [LoadReport(number, 0.0, 100, 16, used_blocks=used, backlog_tokens=backlog)
               for number, (used, backlog) in enumerate(((10, 0), (2, 100), (0, 170)))]
    assert LeastTokens().choose(ask(), 0, reports) == 1


def test_home_takes_its_share_of_the_load_and_no_more():
    def chosen(bound, at_home, beside, far):
        dispatcher = PrefixAware(4, bound)
        home = dispatcher.choose(ask([7] * 4), 0, fleet(0, 0, 0))
        loads = dict(zip((home, *({0, 1, 2} - {home})), (at_home, beside, far), strict=True))
        return dispatcher.choose(ask([7] * 4), 0, fleet(*(loads[number] for number in range(3)))) == home

    assert chosen(1.0, 1, 0, 4), "2 of 6 is a third: the mean with the new one counted"
    assert not chosen(1.0, 2, 0, 3) and not chosen(1.0, 2, 3, 0)
    assert chosen(2.0, 3, 0, 2) and not chosen(2.0, 4, 0, 1)
    assert not chosen(1.0, 1, 0, 0), "one each before anybody has two"
    assert chosen(1.0, 1, 1, 1), "nobody is below: then home"


def test_every_instance_is_home_to_its_share_and_who_steps_in_for_it_differs():
    """Beginnings of equal length, over 12 instances: 100 of 1,200 each, and the seconds of each home are spread too."""
    dispatcher, empty = PrefixAware(8), fleet(*[0] * 12)
    homes, seconds = Counter(), defaultdict(Counter)
    for family in range(1200):
        request = ask([1000 + family] * 8)
        home = dispatcher.choose(request, 0, empty)
        homes[home] += 1
        busy = [each._replace(running=50) if each.instance == home else each for each in empty]
        seconds[home][dispatcher.choose(request, 0, busy)] += 1
    assert len(homes) == 12 and min(homes.values()) > 65 and max(homes.values()) < 140, homes
    assert all(len(after) == 11 and max(after.values()) < 0.3 * after.total() for after in seconds.values()), seconds


def test_what_was_sent_since_the_last_report_counts():
    board = Board(Reporting(1.0, delay=0.5))
    board.sent(LoadReport(0, 0.0, 100, 16))
    board.placed(0, 40)
    assert board.read(0.0) == [LoadReport(0, 0.0, 100, 16).with_one_more(40)]
    driver = cluster("virtual", 3, dispatch=LeastRequests(), reporting=Reporting(1000.0), num_blocks=80)
    requests = [driver.add(ask([n + 1, 2], 4)) for n in range(6)]
    assert [driver.owner(request.id) for request in requests] == [0, 1, 2] * 2
    finish(driver)
    for wrong in (dict(delay=-1.0), dict(loss=1.5), dict(loss=-0.1), dict(every=-1.0)):
        with pytest.raises(UserError, match="a delay of at least 0"):
            Reporting(**wrong)


def test_of_two_that_come_together_the_second_sees_the_first():
    placed = GlobalScheduler(LeastRequests()).decide(fleet(0, 0), [(0, ask()), (1, ask())])
    assert [decision.instance for decision in placed] == [0, 1]
    only = GlobalScheduler(Freeness()).decide(fleet(3, 0), [(0, ask())])
    assert [decision.instance for decision in only] == [1]

    class Nobody(Freeness):
        def choose(self, request, number, reports):
            return None if number == 0 else reports[0].instance

    placed = GlobalScheduler(Nobody(), Rebalance()).decide(fleet(0), [(0, ask()), (1, ask())])
    assert [decision.instance for decision in placed] == [0]
    crowded = LoadReport(0, 0.0, 100, 16, 9, 0, 99, virtual_blocks=99)
    assert GlobalScheduler(Nobody(), Rebalance()).decide([crowded, *fleet(0, 0)[1:]], [(0, ask())]) == []


# ---- pairs -----------------------------------------------------------------------------------------------------------


def loaded(number, running, used, **more):
    return LoadReport(number, 0.0, 100, 16, running, 0, used, virtual_blocks=used, **more)


def test_what_may_move_is_what_leaves_the_destination_better_off():
    poor, rich = loaded(0, 10, 90), loaded(1, 3, 40)          # freeness 1 and 20
    assert Rebalance(3.0).pairs([poor, rich]) == [Migrate(0, 1, 60 - 3 * 4, "balance")]
    gave_way = loaded(0, 2, 90, preempted=1)                  # freeness 5, above the threshold
    assert Rebalance(3.0).pairs([gave_way, rich]) == [Migrate(0, 1, 60 - 5 * 4, "balance")]
    blocked = poor._replace(waiting=1, head_blocks=11)
    assert Rebalance(3.0).pairs([blocked, rich])[0].reason == "make room"
    assert Rebalance(3.0).pairs([blocked._replace(head_blocks=10), rich])[0].reason == "balance", "it fits"
    leaving = poor._replace(terminating=True)
    assert Rebalance(3.0).pairs([leaving, rich]) == [Migrate(0, 1, 60, "drain")]
    virtual = rich._replace(virtual_blocks=70.0)
    assert Rebalance(3.0).pairs([poor, virtual]) == [Migrate(0, 1, 30 - 12, "balance")]


def test_thresholds_are_not_crossed_by_touching_them():
    source, rich = loaded(0, 10, 70), loaded(1, 1, 0)         # freeness 3 and 100
    assert Rebalance(3.0).pairs([source, rich]) == [] != Rebalance(3.1).pairs([source, rich])
    poor = loaded(0, 10, 90)
    assert Rebalance(3.0, 10.0).pairs([poor, loaded(1, 2, 80)]) == [], "10 is not above 10"
    assert Rebalance(1.5, 9.0).pairs([poor, loaded(1, 2, 80)]) == [Migrate(0, 1, 15, "balance")]
    assert Rebalance(3.0).pairs([poor, loaded(1, 2, 94)]) == [], "3 is not above 3"
    assert Rebalance(3.0).pairs([poor, loaded(1, 2, 92)]) == [], "4 is, but 8 blocks are less than 3 for each of 3"
    assert Rebalance(3.0, 3.0).below == 3.0
    assert Rebalance(float("-inf")).pairs([loaded(0, 2, 90, preempted=1), rich]) == []
    assert Rebalance(3.0).pairs([poor, rich._replace(busy=True)]) == []
    assert Rebalance(3.0).pairs([poor, rich._replace(preempted=1)]) == []
    assert Rebalance(3.0).pairs([poor, rich._replace(terminating=True)]) == []


def test_an_empty_instance_that_is_drained_keeps_no_destination_from_others():
    """Until somebody retires it, which nobody does after a drain by hand, it has nothing to give away."""
    empty, poor, rich = loaded(0, 0, 0, terminating=True), loaded(1, 10, 90), loaded(2, 3, 40)
    assert Rebalance(3.0).pairs([empty, poor, rich]) == [Migrate(1, 2, 60 - 3 * 4, "balance")]
    assert Rebalance(3.0).pairs([empty._replace(waiting=1), poor, rich]) == [Migrate(0, 2, 60, "drain")]


# ---- roles -----------------------------------------------------------------------------------------------------------


def seat(number, role="", urgent=0, waiting=0, used=0, running=0, **more):
    return LoadReport(number, 0.0, 100, 16, max(running, urgent), waiting, used, 10 * waiting, urgent=urgent, role=role,
                      **more)


def test_who_cannot_wait_fills_one_instance_after_the_other():
    def chosen(*reports, priority=0):
        return ByRole(seats=4).choose(ask(priority=priority), 0, reports)

    mixed = seat(0, MIXED)
    assert chosen(mixed, seat(1, urgent=3), seat(2)) == 1, "not a mixed one while another has a seat, nor the emptiest"
    assert chosen(mixed, seat(1, urgent=4), seat(2, urgent=1)) == 2
    assert chosen(mixed, seat(1, urgent=2, waiting=2), seat(2, BATCH)) == 0, "who waits will sit there too"
    assert chosen(seat(0, MIXED, 6), seat(1, urgent=5), seat(2, BATCH)) == 1, "all are full: the least full"
    assert chosen(seat(0, MIXED, 5), seat(1, urgent=6), seat(2, BATCH)) == 0
    assert chosen(seat(3, BATCH), seat(4, BATCH)) == 3, "where there is nothing else"
    assert chosen(mixed, seat(1, urgent=1), priority=-1) == 1


def test_who_can_wait_takes_what_is_to_spare_or_waits():
    def chosen(*reports, tokens=16):
        return ByRole(seats=4, spare=0.2, batch_seats=8).choose(ask([1] * tokens, priority=1), 0, reports)

    full = seat(0, running=1)
    assert chosen(full, seat(1, MIXED, running=1), seat(2, BATCH, running=1)) == 2
    assert chosen(full, seat(1, MIXED, running=1), seat(2, BATCH, running=8)) == 1, "no seat but this"
    assert chosen(full, seat(1, BATCH, running=7)) == 1
    assert chosen(full, seat(1, MIXED, running=1, preempted=1)) is None
    assert chosen(full, seat(1, MIXED, running=1, used=79)) == 1, "20 of 100 stay free"
    assert chosen(full, seat(1, MIXED, running=1, used=79), tokens=17) is None
    assert chosen(full, seat(1, MIXED, running=1, waiting=1, used=70)) is None, "who waits there has been promised 10"
    assert chosen(seat(0), seat(1, MIXED, running=1, used=99)) == 0, "whoever is idle takes anything"
    assert chosen(full) is None
