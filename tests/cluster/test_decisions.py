"""Reports, dispatchers, pairing, link and gateway: pure parts, by property and by example."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.cluster import (
    DISPATCHERS,
    Freeness,
    GlobalScheduler,
    LeastRequests,
    Link,
    LoadReport,
    PowerOfTwo,
    PrefixAware,
    Rebalance,
    Reporting,
    RoundRobin,
)
from llmcourse.cluster.board import Board
from llmcourse.cluster.decisions import Dispatch
from llmcourse.cluster.gateway import Gateway
from llmcourse.cluster.instance import Delivery, Instance
from llmcourse.cluster.link import Traffic
from llmcourse.engine import Request
from llmcourse.errors import UserError
from llmcourse.policies.headroom import freeness
from tests.cluster.worlds import ask, engine


@st.composite
def fleets(draw, most=8):
    fleet = []
    for number in range(draw(st.integers(1, most))):
        blocks, running, waiting = 100, draw(st.integers(0, 12)), draw(st.integers(0, 4))
        used = draw(st.integers(0, blocks)) if running else 0
        head = draw(st.integers(1, 60)) if waiting else 0
        fleet.append(LoadReport(number, 0.0, blocks, 16, running, waiting, used, head * max(1, waiting), head,
                                used + head, used * 16, draw(st.integers(0, 1)) if waiting else 0,
                                draw(st.integers(0, 3)) == 0, draw(st.integers(0, 3)) == 0))
    return fleet


@given(fleets(), st.sampled_from(sorted(DISPATCHERS)), st.integers(0, 1000))
def test_a_dispatcher_answers_the_same_question_alike_and_names_an_instance(fleet, name, number):
    request, before = Request([1, 2, 3] * 40), list(fleet)
    answers = {DISPATCHERS[name]().choose(request, number, fleet) for _ in range(3)}
    assert len(answers) == 1 and answers <= {report.instance for report in fleet} and fleet == before


@given(fleets(), st.sampled_from((1.0, 3.0, 10.0)), st.sampled_from((None, 12.0)))
def test_pairs_keep_every_rule(fleet, below, above):
    by_number = {report.instance: report for report in fleet}
    pairs = Rebalance(below, above).pairs(fleet)
    taking_part = [number for pair in pairs for number in (pair.source, pair.destination)]
    assert len(taking_part) == len(set(taking_part)), "an instance takes part twice"
    for pair in pairs:
        source, destination = by_number[pair.source], by_number[pair.destination]
        assert not source.busy and not destination.busy and not destination.terminating and not destination.preempted
        assert source.terminating or source.preempted or source.freeness < below
        assert destination.freeness > (above or below) and pair.most_blocks > 0
        assert pair.reason == ("drain" if source.terminating else pair.reason)


@given(fleets(), st.integers(1, 90))
@settings(max_examples=200)
def test_what_moves_leaves_the_destination_better_off_than_its_source_was(fleet, blocks):
    by_number = {report.instance: report for report in fleet}
    for pair in Rebalance(3.0).pairs(fleet):
        source, there = by_number[pair.source], by_number[pair.destination]
        moved = min(blocks, pair.most_blocks)
        after = there._replace(running=there.running + 1, virtual_blocks=there.virtual_blocks + moved)
        if pair.reason != "drain":
            assert after.freeness >= source.freeness, "it could go straight back"


def test_poorest_with_richest_and_an_instance_that_is_emptied_first():
    fleet = [LoadReport(n, 0.0, 100, 16, 10, 0, used, virtual_blocks=used)
             for n, used in enumerate((95, 20, 99, 50, 10))]
    fleet[3] = fleet[3]._replace(terminating=True)
    pairs = Rebalance(3.0).pairs(fleet)
    assert [(pair.source, pair.destination, pair.reason) for pair in pairs] == [(3, 4, "drain"), (2, 1, "balance")]
    assert Rebalance(3.0).pairs([]) == []
    with pytest.raises(UserError, match="circles"):
        Rebalance(5.0, 3.0)


def with_free(number, free, running=10, **more):
    return LoadReport(number, 0.0, 100, 16, running, used_blocks=100 - free, virtual_blocks=100.0 - free, **more)


def test_thresholds_are_kept_to_the_block():
    apart, one = Rebalance(3.0, 5.0), Rebalance(3.0)
    assert [len(apart.pairs([with_free(0, free), with_free(1, 90)])) for free in (29, 30)] == [1, 0]
    assert [len(apart.pairs([with_free(0, 29), with_free(1, free)])) for free in (50, 51)] == [0, 1]
    moves = [one.pairs([with_free(0, 20), with_free(1, free)]) for free in (33, 34)]
    assert moves[0] == [] and moves[1][0].most_blocks == 1, "with one more to divide by 3 blocks are left for each"
    waits = [with_free(0, 7, waiting=1, head_blocks=head, waiting_blocks=head) for head in (7, 8)]
    assert [one.pairs([source, with_free(1, 90)])[0].reason for source in waits] == ["balance", "make room"]


def test_decide_places_one_after_the_other_and_moves_only_when_nothing_is_new():
    fleet = [LoadReport(n, 0.0, 100, 16, 1, 0, 40, virtual_blocks=40.0) for n in range(3)]
    fleet.append(LoadReport(3, 0.0, 100, 16, 0, 0, terminating=True))
    scheduler = GlobalScheduler(LeastRequests(), Rebalance())
    pending = [(number, ask([1] * 20)) for number in range(6)]
    decisions = scheduler.decide(fleet, pending)
    assert Counter(decision.instance for decision in decisions) == {0: 2, 1: 2, 2: 2}
    assert all(isinstance(decision, Dispatch) for decision in decisions)
    assert scheduler.decide(fleet, pending) == decisions, "pure: the same question, the same answer"
    assert scheduler.decide([fleet[3]], pending) == []


def test_two_choices_are_far_better_than_one_and_herds_follow_old_reports():
    def most(dispatcher, fresh):
        fleet = [LoadReport(n, 0.0, 1000, 16) for n in range(50)]
        shown = list(fleet)
        for number in range(1000):
            chosen = dispatcher.choose(ask(), number, fleet if fresh else shown)
            fleet[chosen] = fleet[chosen].with_one_more(16)
        return max(report.waiting for report in fleet)

    assert most(PowerOfTwo(), True) < most(DISPATCHERS["random"](), True) - 5
    assert most(LeastRequests(), False) == 1000, "everybody follows the same old report"
    assert most(PowerOfTwo(), False) < 100


def test_prefixes_go_home_unless_home_is_full():
    fleet = [LoadReport(n, 0.0, 1000, 16, 4) for n in range(8)]
    dispatcher = PrefixAware(prefix_tokens=8)
    homes = {family: dispatcher.choose(ask([family] * 8 + [99]), 0, fleet) for family in range(1, 60)}
    for family, home in homes.items():
        assert dispatcher.choose(ask([family] * 8 + [5, 6]), 7, fleet) == home
    assert len(set(homes.values())) == 8, "families are spread"
    crowded = [report._replace(running=40) if report.instance == homes[1] else report for report in fleet]
    assert dispatcher.choose(ask([1] * 8), 0, crowded) != homes[1]


def test_a_report_tells_what_the_engine_would_and_freeness_is_week_6s():
    here = Instance(3, engine(num_blocks=60), {0: 10.0})
    for n in range(4):
        here.engine.add(ask([n] * 20, 30, priority=n % 2))
    for _ in range(5):
        here.engine.step()
    report, scheduler = here.report(), here.engine.scheduler
    assert report.used_blocks == here.engine.pool.num_used and report.backlog_tokens == scheduler.backlog
    assert report.freeness == pytest.approx(freeness(scheduler, {0: 10.0}, here.engine.clock.now))
    assert report._replace(terminating=True).freeness == float("-inf")
    more = report.with_one_more(32)
    assert more.waiting == report.waiting + 1 and more.dispatch_freeness < report.dispatch_freeness


def test_the_freest_counts_all_who_wait():
    long_queue = LoadReport(0, 0.0, 100, 16, 2, 5, 10, 60, 12, 22.0)
    short_queue = LoadReport(1, 0.0, 100, 16, 2, 1, 40, 12, 12, 52.0)
    assert long_queue.freeness > short_queue.freeness and long_queue.dispatch_freeness < short_queue.dispatch_freeness
    assert Freeness().choose(ask(), 0, [long_queue, short_queue]) == 1


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 10**9)), min_size=1, max_size=6),
       st.sampled_from((None, 2e8, 5e8)))
def test_nobody_is_sent_faster_than_the_link_and_nothing_is_lost(transfers, total):
    link = Link(1e8, 0.0, total)
    traffic, starts, ended = Traffic(link), dict(enumerate(sorted(transfers))), {}
    todo = sorted((time, key) for key, (time, _) in starts.items())
    while todo or traffic.next_end()[1] is not None:
        arrives, key = traffic.next_end()
        if todo and todo[0][0] <= arrives:
            time, started = todo.pop(0)
            traffic.start(started, starts[started][1], time)
        else:
            traffic.end(key, arrives)
            ended[key] = arrives
    sizes = sum(size for _, size in transfers)
    for key, (begin, size) in starts.items():
        assert ended[key] - begin >= size / min(1e8, total or 1e8) * (1 - 1e-6)
    if total:
        assert max(ended.values()) - min(time for time, _ in transfers) >= sizes / total * (1 - 1e-6)


def test_two_transfers_share_a_narrow_network():
    traffic = Traffic(Link(100.0, 0.0, total=100.0))
    traffic.start("a", 100, 0.0)
    traffic.start("b", 100, 0.5)                              # a has 50 left; both go on at half speed
    assert traffic.next_end() == (pytest.approx(1.5), "a")
    traffic.end("a", 1.5)
    assert traffic.next_end() == (pytest.approx(2.0), "b")
    with pytest.raises(UserError, match="carries nothing"):
        Link(0.0)


def test_old_and_lost_reports():
    board = Board(Reporting(0.1, delay=1.0, loss=0.5, seed=1))
    board.sent(LoadReport(0, 0.0, 100, 16))
    assert board.read(0.0)[0].running == 0
    for n in range(1, 101):
        board.sent(LoadReport(0, n / 10, 100, 16, running=n))
    assert board.read(1.05)[0].running == 0, "nothing younger than a second is known"
    seen = [board.read(time / 100)[0].running for time in range(105, 1200)]
    assert seen == sorted(seen) and 30 < len(set(seen)) < 70, "about half of them are lost"
    with pytest.raises(UserError, match="period above 0"):
        Reporting(0.0)


@given(st.integers(0, 10**6))
def test_a_stream_has_no_gap_and_no_repetition_whatever_comes_twice(seed):
    dice, gateway, request = random.Random(seed), Gateway(), ask([1, 2])
    request.id, request.arrival = "r", 0.0
    gateway.opened(request, 0)
    tokens, sent = [dice.randrange(50) for _ in range(30)], 0
    while sent < len(tokens):
        first = dice.randint(max(0, sent - 4), sent)
        last = min(len(tokens), first + dice.randint(1, 6))
        gateway.hear([Delivery("r", first, tuple(tokens[first:last]))])
        sent = max(sent, last)
        assert gateway.streams["r"].output == tokens[:sent]
    with pytest.raises(RuntimeError, match="came after"):
        gateway.hear([Delivery("r", sent + 1, (5,))])


def test_round_robin_is_each_in_turn():
    fleet = [LoadReport(n, 0.0, 10, 4) for n in (2, 5, 7)]
    assert [RoundRobin().choose(ask(), number, fleet) for number in range(4)] == [2, 5, 7, 2]
