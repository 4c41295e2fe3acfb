import pytest

from llmcourse.engine import Engine, SamplingParams, VirtualClock
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool
from llmcourse.serve import ModelRegistry, ModelState


def mock_loader(clock, seconds=2.0):
    clock.advance(seconds)
    return Engine(MockExecutor(4), BlockPool(32, 4), clock=clock)


def test_a_model_is_loaded_once_when_first_asked_for():
    registry = ModelRegistry(VirtualClock())
    registry.register("m", "1", mock_loader)
    assert registry.find("m").state is ModelState.REGISTERED and registry.ready == []
    engine = registry.load("m")
    assert registry.load("m") is engine and registry.ready == [engine]
    assert registry.find("m").state is ModelState.READY
    assert registry.find("m").load_seconds == 2.0
    assert registry.clock.now == 2.0


def test_the_newest_version_answers_unless_one_is_named():
    registry = ModelRegistry(VirtualClock())
    for version in ("1", "2"):
        registry.register("m", version, mock_loader)
    assert registry.find("m").version == "2"
    assert registry.find("m", "1").version == "1"
    with pytest.raises(UserError, match="no model m version 3; registered: m version 1, m version 2"):
        registry.find("m", "3")
    with pytest.raises(UserError, match="a version never changes"):
        registry.register("m", "2", mock_loader)


def test_a_failed_load_keeps_its_reason_and_can_be_tried_again():
    registry, broken = ModelRegistry(VirtualClock()), [True]

    def loader(clock):
        if broken.pop() if broken else False:
            raise OSError("disk on fire")
        return mock_loader(clock)

    registry.register("m", "1", loader)
    with pytest.raises(UserError, match="disk on fire"):
        registry.load("m")
    assert registry.find("m").state is ModelState.FAILED and registry.find("m").error == "disk on fire"
    registry.load("m")
    assert registry.find("m").state is ModelState.READY and registry.find("m").error == ""


def test_a_model_is_not_unloaded_under_its_requests():
    registry = ModelRegistry(VirtualClock())
    registry.register("m", "1", mock_loader)
    engine = registry.load("m")
    engine.submit([1, 2, 3], SamplingParams(max_tokens=2, ignore_eos=True))
    with pytest.raises(UserError, match="still serves 1 requests"):
        registry.unload("m")
    for _ in engine.stream():
        pass
    registry.unload("m")
    assert registry.find("m").state is ModelState.REGISTERED and registry.ready == []
