"""Replaying a workload: arrivals when they are due, in real and in virtual time, open and closed loops."""

import pytest

from llmcourse.engine import Admission, Engine, VirtualClock, replay
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool
from llmcourse.metrics.ledger import Ledger
from llmcourse.workload import SLO, Arrival, ClosedLoop, Constant


def mock(**options):
    return Engine(MockExecutor(4, step_seconds=1.0, token_seconds=0), BlockPool(64, 4), clock=VirtualClock(),
                  checked=True, **options)


def simulated(**options):
    return Engine.simulated("Llama 2 7B", "A100 80 GB", **options)


def test_requests_come_when_they_are_due_and_carry_what_the_arrival_says():
    engine = mock()
    table = replay(engine, [Arrival(0.0, 3, 2, tenant="a", slo=SLO(ttft=5)),
                            Arrival(0.5, 4, 1, priority=2, predicted=7), Arrival(30.0, 5, 3)])
    assert list(table["arrival"]) == [0.0, 0.5, 30.0]
    assert list(table["prompt_tokens"]) == [3, 4, 5] and list(table["output_tokens"]) == [2, 1, 3]
    assert list(table["ttft"]) == [1.0, 1.5, 1.0]                 # the second waits for the step under way
    assert (table["tenant"][0], table["priority"][1], table["ttft_slo"][0]) == ("a", 2, 5)
    assert engine.requests["r1"].predicted == 7


def test_arrivals_out_of_order_are_refused_by_number():
    with pytest.raises(UserError, match=r"arrival 2 comes at 1 s, after one at 2"):
        replay(mock(), [Arrival(2, 3, 1), Arrival(1, 3, 1)])


def test_a_generator_is_read_as_time_goes_by():
    engine, seen = simulated(ledger=Ledger()), []

    def arrivals():
        for number in range(50):
            seen.append((number, engine.clock.now))
            yield Arrival(number * 10.0, 100, 20)
    assert len(replay(engine, arrivals())) == 50
    assert all(now >= (number - 1) * 10.0 for number, now in seen)
    assert engine.requests == {}


@pytest.mark.parametrize("make", [mock, simulated])
def test_in_a_closed_loop_a_user_asks_again_after_the_answer(make):
    engine = make()
    table = replay(engine, ClosedLoop(users=2, think=3.0, prompts=Constant(4), outputs=Constant(5), seed=1, count=9))
    assert len(table) == 9 and table.finished.all()
    ends = sorted(table["arrival"] + table["e2e"])
    for arrival in table["arrival"][2:]:
        assert min(abs(arrival - 3.0 - end) for end in ends) < 1e-9    # exactly 3 s after somebody's answer
    assert len(set(engine.requests)) == 9


def test_the_wall_clock_is_waited_for():
    engine = Engine(MockExecutor(4), BlockPool(64, 4))
    table = replay(engine, [Arrival(0.0, 3, 2), Arrival(0.05, 3, 2)])
    assert table["arrival"][1] - table["arrival"][0] == pytest.approx(0.05)
    assert engine.clock.now >= 0.05 and (table["queue_time"] >= 0).all()


def test_hidden_lengths_end_requests_that_asked_for_more():
    engine = simulated()
    table = replay(engine, [Arrival(0.0, 10, 7), Arrival(0.0, 10, 40)], declared=100)
    assert list(table["output_tokens"]) == [7, 40] and set(table["finish_reason"]) == {"stop"}
    assert all(request.sampling.max_tokens == 100 for request in engine.requests.values())
    with pytest.raises(UserError, match="only a simulated engine"):
        replay(mock(), [Arrival(0.0, 10, 7)], declared=100)


def test_shared_prefixes_are_equal_tokens():
    engine = simulated()
    replay(engine, [Arrival(0.0, 1100, 1, prefix=(5, 9)), Arrival(0.0, 1200, 1, prefix=(5, 8)), Arrival(0, 600, 1)])
    one, two, _ = (list(request.prompt) for request in engine.requests.values())
    assert one[:512] == two[:512] and one[512:1024] != two[512:1024]
    assert [len(one), len(two)] == [1100, 1200]


class OneAtATime(Admission):
    def refuse(self, request, scheduler, now):
        return "one is enough" if scheduler.waiting or scheduler.running else None


class Impatient(Admission):
    def drop(self, request, scheduler, now):
        return "waited too long" if now - request.arrival > 2 else None


def test_whoever_is_sent_away_at_the_door_is_counted_and_told_why():
    engine = mock(admission=OneAtATime())
    progress = []
    table = replay(engine, [Arrival(0.0, 3, 4), Arrival(1.5, 3, 1), Arrival(20.0, 3, 1)], progress=progress.append)
    assert list(table["finish_reason"]) == ["length", "shed", "length"]
    assert engine.counters.shed == 1 and progress[-1] == 3
    aborted = [event for event in engine.events if event.kind == "ABORTED"]
    assert [event.data for event in aborted] == [{"reason": "one is enough"}]


def test_whoever_has_waited_too_long_is_sent_away_before_the_next_step():
    engine = mock(max_running=1, admission=Impatient())
    table = replay(engine, [Arrival(0.0, 3, 5), Arrival(0.5, 3, 5), Arrival(4.0, 3, 2)])
    assert list(table["finish_reason"]) == ["length", "shed", "length"]
    assert engine.counters.steps == 7


def test_it_can_be_stopped():
    engine = simulated()
    replay(engine, [Arrival(float(i), 100, 50) for i in range(100)], stop=lambda: engine.clock.now > 20)
    assert 20 < engine.clock.now < 40


def test_a_load_that_fits_nowhere_is_refused_with_the_arithmetic():
    with pytest.raises(UserError, match="weights"):
        Engine.simulated("Llama 2 70B", "A10")
    with pytest.raises(UserError, match="it could never finish"):
        replay(simulated(num_blocks=10), [Arrival(0.0, 1000, 10)])
