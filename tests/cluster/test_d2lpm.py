"""A dispatcher that remembers what it has sent: where prompts begin alike, within a client's share of each instance."""

import random
from dataclasses import replace

import pytest

from llmcourse.cluster import D2LPM, DISPATCHERS, Dispatcher, LoadReport, LocalDriver, VirtualDriver
from llmcourse.engine import Engine, Request, SamplingParams, VirtualClock
from llmcourse.engine.family import answers_to
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.kv import PrefixPool
from llmcourse.metrics.ledger import Ledger
from llmcourse.policies import DLPM
from llmcourse.workload import Arrival
from tests.cluster.worlds import ask, check_all, cluster, finish

REPORTS = [LoadReport(number, 0.0, 100, 4) for number in range(3)]


def prompt(group, own=0):
    return [group] * 32 + [own]


def send(dispatch, request, number=0, reports=REPORTS):
    chosen = dispatch.choose(request, number, reports)
    assert chosen == dispatch.choose(request, number, reports), "asking has changed the answer"
    dispatch.sent(request, chosen, reports)
    return chosen


def made(number, group=1, tenant="a", output=4):
    return ask(prompt(group, number), output, id=f"r{number}", tenant=tenant)


def test_what_begins_alike_goes_where_it_was_sent_before():
    dispatch = D2LPM(10_000, piece=8)
    first = send(dispatch, made(0, group=1))
    busy = [report._replace(waiting=5) if report.instance == first else report for report in REPORTS]
    other = send(dispatch, made(1, group=2), 1, busy)
    assert other != first
    assert send(dispatch, made(2, group=1), 2, busy) == first
    assert dispatch.matched(made(3, group=1), first) == 32 and dispatch.matched(made(3, group=1), other) == 0


def test_a_client_that_has_spent_its_share_goes_elsewhere_and_gets_a_quantum_everywhere():
    dispatch = D2LPM(20, piece=8)                             # less than one prompt of 33 tokens costs
    chosen = [send(dispatch, made(number)) for number in range(3)]
    assert sorted(chosen) == [0, 1, 2]
    assert send(dispatch, made(3)) in (0, 1, 2)
    assert all(dispatch.matched(made(4), number) == 32 for number in range(3))
    assert len({dispatch.deficits["a", number] for number in range(3)}) <= 2


def test_what_is_found_is_not_charged_and_output_is_when_it_has_ended():
    dispatch = D2LPM(100, piece=8)
    home = send(dispatch, made(0))
    assert dispatch.deficits["a", home] == 100 - 33
    send(dispatch, made(1))
    assert dispatch.deficits["a", home] == 100 - 33 - 1
    dispatch.done("r0", 4)
    dispatch.done("r0", 4)
    dispatch.done("never sent", 7)
    assert dispatch.deficits["a", home] == 100 - 33 - 1 - 8


def test_all_answers_to_a_prompt_are_charged():
    request, dispatch = made(0), D2LPM(100, piece=8)
    request.sampling = replace(request.sampling, n=3)
    answers = answers_to(request)
    home = send(dispatch, request)
    for answer in answers:
        dispatch.done(answer.id, 4)
    assert dispatch.deficits["a", home] == 100 - 33 - 3 * 8


def test_an_instance_is_not_believed_to_hold_more_than_it_can():
    dispatch = D2LPM(10**9, piece=8)
    reports = [LoadReport(0, 0.0, 12, 4)]                     # room for 48 tokens, a prompt and a half
    for number in range(2):
        send(dispatch, made(number, group=number + 1), number, reports)
    assert dispatch.matched(made(2, group=2), 0) == 32 and dispatch.matched(made(2, group=1), 0) < 32


class Recorded(Dispatcher):
    """Writes down what it is told."""

    def __init__(self):
        self.notes = []

    def choose(self, request, number, reports):
        return reports[number % len(reports)].instance

    def sent(self, request, instance, reports):
        self.notes.append(("sent", request.id, instance))

    def done(self, request_id, output):
        self.notes.append(("done", request_id, output))


@pytest.mark.parametrize("driver", ["local", "virtual"])
def test_every_driver_says_what_was_sent_and_what_has_ended(driver):
    told = Recorded()
    made = cluster(driver, dispatch=told, num_blocks=40)
    requests = [made.add(ask([n + 1, 2, 3], 3 + n)) for n in range(5)]
    made.abort(requests[4].id)
    finish(made)
    check_all(made, requests)
    assert [note for note in told.notes if note[0] == "sent"] == [("sent", f"r{n}", n % 2) for n in range(5)]
    done = sorted(note[1:] for note in told.notes if note[0] == "done")
    assert done == [("r0", 3), ("r1", 4), ("r2", 5), ("r3", 6), ("r4", 0)]


def test_a_simulation_that_keeps_no_events_says_it_too():
    told, ledger = Recorded(), Ledger()
    driver = VirtualDriver([Engine.simulated(ledger=ledger) for _ in range(2)], told)
    driver.run([Arrival(0.1 * n, 20, 5 + n) for n in range(6)])
    assert sorted(note for note in told.notes if note[0] == "done") == [("done", f"r{n}", 5 + n) for n in range(6)]


def test_whose_instance_dies_has_not_ended():
    told = Recorded()
    driver = cluster("virtual", dispatch=told, num_blocks=40)
    request = driver.add(ask(max_tokens=20))
    driver.advance(0.01)
    driver.kill(0)
    assert ("done", request.id, 20) not in told.notes
    finish(driver)
    assert [note for note in told.notes if note[0] == "done"] == [("done", request.id, 20)]


def engine(num_blocks=48):
    return Engine(MockExecutor(4, vocab_size=1000), PrefixPool(num_blocks, 4), DLPM(60), token_budget=48, max_running=4,
                  clock=VirtualClock(), checked=True)


@pytest.mark.parametrize("driver", [LocalDriver, VirtualDriver])
def test_it_serves_clients_who_share_prompts_losslessly_and_finds_more_than_round_robin(driver):
    hits = {}
    for name in ("d2lpm", "round-robin"):
        dispatch = D2LPM(400, piece=8) if name == "d2lpm" else DISPATCHERS[name]()
        made = driver([engine() for _ in range(3)], dispatch)
        dice = random.Random(3)
        requests = [made.add(Request(prompt(dice.randint(1, 9), 100 + n), SamplingParams(6, ignore_eos=True, seed=1),
                                     tenant=dice.choice("ab"))) for n in range(60)]
        finish(made)
        for request in requests:
            alone = MockExecutor(4, vocab_size=1000).continue_alone(request.prompt, 6, True)
            assert made.tokens(request.id) == alone
        hits[name] = sum(instance.engine.counters.hit_tokens for instance in made.alive)
        assert min(sum(r.id in instance.engine.requests for r in requests) for instance in made.alive) >= 10
    assert hits["d2lpm"] > 1.15 * hits["round-robin"]


def test_a_piece_of_nothing_is_refused():
    with pytest.raises(UserError, match="pieces of 0 tokens"):
        D2LPM(piece=0)
