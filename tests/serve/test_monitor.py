import re

import pytest

from llmcourse.engine import Engine, SamplingParams, VirtualClock
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool
from llmcourse.serve import Histogram, Monitor


def engine_of(blocks=8, **options):
    return Engine(MockExecutor(4, step_seconds=0.1, token_seconds=0.0), BlockPool(blocks, 4), clock=VirtualClock(),
                  checked=True, **options)


def endless(count):
    return SamplingParams(max_tokens=count, ignore_eos=True)


def test_gauges_follow_the_engine_step_by_step():
    engine = engine_of(blocks=6, max_running=3)
    for length in (5, 9, 3, 2, 1):
        engine.submit([1] * length, endless(6))
    while not engine.idle:
        engine.step()
        gauges = Monitor(engine.events).gauges()
        assert gauges["num_requests_running"] == len(engine.scheduler.running)
        assert gauges["num_requests_waiting"] == len(engine.scheduler.waiting)
        assert gauges["kv_cache_usage_perc"] == pytest.approx(engine.pool.num_used / engine.pool.num_blocks)
    assert engine.counters.preemptions > 0, "the pool is too large for this test to say anything about preemption"
    counters = Monitor(engine.events).counters()
    assert counters == {"num_preemptions": engine.counters.preemptions, "prompt_tokens": 20, "generation_tokens": 30}


def test_latencies_of_one_request_in_virtual_time():
    engine = engine_of()
    engine.submit([1, 2, 3], endless(4))
    for _ in engine.stream():
        pass
    histograms = Monitor(engine.events).histograms()
    assert histograms["time_to_first_token_seconds"].sum == pytest.approx(0.1)
    assert histograms["inter_token_latency_seconds"].count == 3
    assert histograms["inter_token_latency_seconds"].sum == pytest.approx(0.3)
    assert histograms["e2e_request_latency_seconds"].sum == pytest.approx(0.4)
    assert histograms["iteration_tokens_total"].sum == 3 + 1 + 1 + 1
    assert Monitor(engine.events).finished() == {"length": 1, "stop": 0}


def test_an_aborted_request_is_neither_running_nor_a_success():
    engine = engine_of()
    request = engine.submit([1, 2, 3], endless(9))
    engine.step()
    engine.abort(request.id)
    monitor = Monitor(engine.events)
    assert monitor.gauges() == {"num_requests_running": 0, "num_requests_waiting": 0, "kv_cache_usage_perc": 0}
    assert sum(monitor.finished().values()) == 0
    assert monitor.histograms()["e2e_request_latency_seconds"].count == 0


def test_a_histogram_counts_each_value_in_every_larger_bound():
    histogram = Histogram.of([0.5, 1.0, 3.0], (1.0, 2.0))
    assert histogram == Histogram((1.0, 2.0), (2, 2), 3, 4.5)


def test_the_page_is_what_prometheus_reads():
    engine = engine_of()
    engine.submit([1, 2, 3], endless(4))
    for _ in engine.stream():
        pass
    page = Monitor(engine.events, "m:1").render_prometheus()
    for line in page.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) vllm:\w+ .+|vllm:\w+\{(\w+="[^"]*",?)+\} [-+.\de]+', line), line
    assert 'vllm:num_requests_running{model_name="m:1"} 0' in page
    assert 'vllm:prompt_tokens_total{model_name="m:1"} 3' in page
    assert 'vllm:time_to_first_token_seconds_bucket{le="+Inf",model_name="m:1"} 1' in page
    assert page.count("# TYPE") == len(set(re.findall(r"# TYPE (\S+)", page))) == 14


def test_an_empty_log_is_an_idle_engine():
    monitor = Monitor([])
    assert set(monitor.gauges().values()) == {0}
    assert "vllm:generation_tokens_total" in monitor.render_prometheus()
