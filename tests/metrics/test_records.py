"""A request's record: vLLM's intervals, under preemption, aborts and cut logs."""

import pytest
from hypothesis import given, settings

from llmcourse.metrics.records import records
from tests.metrics.logs import aborted, engines, finished, one_request, preempted, queued, scheduled, tokens


def test_a_plain_request():
    (record,) = records(one_request(arrival=0.5, scheduled_at=1.0, times=(3.0, 4.0, 7.0)))
    assert (record.queue_time, record.prefill_time, record.decode_time) == (0.5, 2.0, 4.0)
    assert (record.ttft, record.tpot, record.itl, record.e2e) == (2.5, 2.0, (1.0, 3.0), 6.5)
    assert (record.prompt_tokens, record.output_tokens, record.finish_reason) == (10, 3, "length")


def test_preemption_belongs_to_neither_neighbour():
    log = [queued(0, "a"), scheduled(1, "a"), preempted(2, "a"), scheduled(4, "a"), tokens(5, "a"), preempted(6, "a"),
           scheduled(9, "a"), tokens(10, "a"), finished(10, "a")]
    (record,) = records(log)
    assert record.preemptions == 2 and record.preempted_time == 2 + 3
    assert (record.queue_time, record.prefill_time, record.decode_time) == (1, 2, 2)
    assert record.itl == (5,) and record.tpot == 5


def test_a_step_that_takes_no_time_keeps_its_preemption_before_the_first_token():
    log = [queued(0, "a"), scheduled(0, "a"), preempted(1, "a"), scheduled(3, "a"), tokens(3, "a"), finished(3, "a")]
    (record,) = records(log)
    assert (record.prefill_time, record.preempted_time, record.decode_time) == (1, 2, 0)


def test_preempted_after_its_last_token_and_given_up():
    log = [queued(0, "a"), scheduled(0, "a"), tokens(1, "a"), tokens(2, "a"), preempted(3, "a"), scheduled(7, "a"),
           aborted(8, "a")]
    (record,) = records(log)
    assert record.decode_time == 1 and record.preempted_time == 4 and record.finish_reason == "abort"


def test_times_that_did_not_come_about_are_none():
    waiting, running = records([queued(0, "a"), queued(0, "b"), scheduled(1, "b")])
    assert waiting.queue_time is None and running.queue_time == 1
    assert running.ttft is None and running.e2e is None and running.decode_time is None and running.itl == ()
    assert waiting.finish_reason is None


def test_one_token_has_no_time_per_token():
    (record,) = records(one_request(times=(3.0,)))
    assert record.tpot is None and record.itl == () and record.decode_time == 0


def test_a_request_that_was_shed_did_not_abort_itself():
    shed, given_up = records([queued(0, "a"), aborted(1, "a", reason="backlog"), queued(0, "b"), aborted(1, "b")])
    assert shed.finish_reason == "shed" and given_up.finish_reason == "abort"


def test_tenant_priority_and_promises_come_from_the_log_and_may_be_missing():
    new, old = records([queued(0, "a", tenant="t", priority=2, ttft_slo=0.5, tpot_slo=None), queued(0, "b")])
    assert (new.tenant, new.priority, new.ttft_slo, new.tpot_slo) == ("t", 2, 0.5, None)
    assert (old.tenant, old.priority, old.ttft_slo, old.tpot_slo) == ("", 0, None, None)


def test_a_log_cut_at_the_front_leaves_out_whom_it_does_not_know():
    assert records([tokens(1, "x"), *one_request("a"), finished(6, "x")])[0].id == "a"


@settings(max_examples=120, deadline=None)
@given(engines())
def test_intervals_add_up_to_end_to_end_for_every_request(engine):
    for record in records(engine.events):
        if record.finish_reason not in ("stop", "length"):
            continue
        parts = (record.queue_time, record.prefill_time, record.decode_time, record.preempted_time)
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(record.e2e)
        assert record.ttft + sum(record.itl) == pytest.approx(record.e2e)
        assert record.output_tokens == len(engine.requests[record.id].output)
