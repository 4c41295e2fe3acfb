import subprocess
import sys

import pytest

from llmcourse.engine import Engine, SamplingParams, VirtualClock
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool
from llmcourse.serve import ModelRegistry, Part, Refused, Service, TokenBucket

EIGHT = SamplingParams(max_tokens=8, ignore_eos=True)


def service_of(num_blocks=32, **limits):
    registry = ModelRegistry(VirtualClock())

    def loader(clock):
        clock.advance(1.0)
        executor = MockExecutor(4, step_seconds=0.1, token_seconds=0)
        return Engine(executor, BlockPool(num_blocks, 4), clock=clock, checked=True)

    registry.register("course-tiny", "1", loader)
    return Service(registry, {name: TokenBucket(*limit) for name, limit in (limits or {"ana": (10, 10)}).items()})


def test_a_request_meets_every_part_in_order():
    service = service_of()
    request = service.submit("ana", [1, 2, 3, 4, 5], EIGHT)
    service.run()
    journey = service.journey(request)
    assert [stop.time for stop in journey] == sorted(stop.time for stop in journey)
    first = list(dict.fromkeys(stop.part for stop in journey))
    assert first == list(Part)
    assert "cold start" in journey[1].what and journey[1].time == 1.0
    worked = [stop.what for stop in journey if stop.part is Part.WORKER]
    assert worked[0] == "step 0: computed 5 tokens from 0" and len(worked) == 8
    gave = [stop for stop in journey if stop.part is Part.KV_MANAGER]
    assert [stop.what.split(":")[0] for stop in gave] == ["gave 2 blocks", "gave 1 block", "took back 3 blocks"]
    assert journey[-1].part is Part.MONITOR and "all 8" in journey[-1].what


def test_the_answer_is_the_engines_own():
    service = service_of()
    ids = [service.submit("ana", [n, n + 1, 7], EIGHT) for n in (1, 5, 9)]
    service.run()
    executor = service.registry.load("course-tiny").executor
    for n, request in zip((1, 5, 9), ids, strict=True):
        assert service.output(request) == executor.continue_alone([n, n + 1, 7], 8, ignore_eos=True)


def test_a_preempted_request_says_so():
    service = service_of(num_blocks=5)
    ids = [service.submit("ana", [1] * 6, EIGHT) for _ in range(2)]
    service.run()
    told = [stop.what for stop in service.journey(ids[1])]
    assert any(what.startswith("preempted: ") for what in told)
    blocks = [what for what in told if "block" in what]
    gave = sum(int(what.split()[1]) for what in blocks if what.startswith("gave"))
    took = sum(int(what.split()[2]) for what in blocks if what.startswith("took"))
    assert gave == took > 0


def test_the_second_request_finds_the_model_in_memory():
    service = service_of()
    service.submit("ana", [1], EIGHT)
    second = service.submit("ana", [2], EIGHT)
    assert service.journey(second)[1].what.endswith("is in memory")


def test_over_the_limit_is_refused_with_a_time_to_come_back():
    service = service_of(ana=(2, 1), bo=(2, 1))
    service.submit("ana", [1], EIGHT)
    service.clock.now = 0.0                               # as if loading had taken no time
    with pytest.raises(Refused, match=r"ana is over its rate limit; try again in 0\.5 s") as refusal:
        service.submit("ana", [1], EIGHT)
    assert refusal.value.retry_after == pytest.approx(0.5)
    assert [stop.part for stop in service.journey(refusal.value.request_id)] == [Part.GATEWAY]
    service.submit("bo", [1], EIGHT)
    service.clock.advance(0.5)
    service.submit("ana", [1], EIGHT)


def test_strangers_unknown_models_and_bad_prompts_stop_at_the_right_door():
    service = service_of()
    with pytest.raises(Refused, match="tenant 'eve' is not known here; known: ana") as refusal:
        service.submit("eve", [1])
    assert refusal.value.retry_after is None
    assert service.registry.ready == [], "a stranger made the service load a model"
    with pytest.raises(UserError, match="no model gpt"):
        service.submit("ana", [1], model="gpt")
    with pytest.raises(UserError, match="empty"):
        service.submit("ana", [])
    with pytest.raises(UserError, match="no tokenizer"):
        service.submit("ana", "hello")
    with pytest.raises(UserError, match="no request 'q99'"):
        service.journey("q99")
    with pytest.raises(UserError, match="never came, or was refused"):
        service.output(refusal.value.request_id)


def test_the_monitor_watches_a_model():
    service = service_of()
    service.submit("ana", [1, 2], EIGHT)
    assert service.monitor().gauges()["num_requests_waiting"] == 1
    service.run()
    assert service.monitor().counters()["generation_tokens"] == 8
    assert 'model_name="course-tiny:1"' in service.monitor().render_prometheus()


def test_importing_the_room_loads_no_torch():
    code = "import sys, llmcourse.serve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
