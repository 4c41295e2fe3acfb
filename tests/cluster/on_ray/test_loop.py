"""The loop inside an actor, without Ray: everything happens between two steps, and nobody waits for ever."""

import threading
import time

import pytest

from llmcourse.cluster import Instance
from llmcourse.cluster.on_ray.loop import Ended, EngineLoop
from llmcourse.engine.transit import Refused
from tests.cluster.on_ray.actors import BrokenExecutor, PacedExecutor, alone, ask, engine


class WatchedExecutor(PacedExecutor):
    """Notes when it is in a step."""

    inside = False

    def execute(self, batch):
        self.inside = True
        try:
            return super().execute(batch)
        finally:
            self.inside = False


@pytest.fixture
def loop():
    running = EngineLoop(Instance(0, engine(executor=WatchedExecutor)))
    yield running
    running.stop()


def take_all(loop, request):
    """All deliveries up to its end."""
    taken = []
    while not any(delivery.reason for delivery in taken):
        news = loop.take(60.0).deliveries
        assert news, "nothing comes any more"
        taken += news
    return taken


def test_what_is_taken_is_everything_once_and_in_order(loop):
    request = ask()
    loop.do(lambda: loop.instance.engine.add(request))
    taken = take_all(loop, request)
    tokens = [token for delivery in taken for token in delivery.tokens]
    assert tokens == alone(request) and taken[-1].reason == "length"
    positions = [delivery.position for delivery in taken if delivery.tokens]
    assert positions == sorted(positions) and positions[0] == 0


def test_commands_of_many_threads_come_between_steps(loop):
    request, executor = ask(max_tokens=100), loop.instance.engine.executor
    loop.do(lambda: loop.instance.engine.add(request))
    inside = []

    def ask_often():
        for _ in range(10):
            inside.append(loop.do(lambda: (executor.inside, threading.current_thread().name)))

    threads = [threading.Thread(target=ask_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == [(False, "instance 0")] * 40
    take_all(loop, request)


def test_what_a_command_raises_is_raised_where_it_was_asked_and_the_loop_goes_on(loop):
    with pytest.raises(Refused, match="never here"):
        loop.do(lambda: loop.instance.look("nobody"))
    assert loop.do(lambda: 7) == 7


def test_nothing_new_is_told_after_some_patience(loop):
    began = time.monotonic()
    assert loop.take(0.05).deliveries == [] and time.monotonic() - began < 5


def test_an_engine_that_fails_ends_the_loop_and_everybody_hears_of_it():
    loop = EngineLoop(Instance(0, engine(executor=BrokenExecutor)))
    loop.do(lambda: loop.instance.engine.add(ask((13,))))
    with pytest.raises(Ended, match="fallen off the bus"):
        loop.take(60.0)
    with pytest.raises(Ended, match="fallen off the bus"):
        loop.do(lambda: 7)


def test_a_loop_that_was_stopped_refuses(loop):
    loop.stop()
    with pytest.raises(Ended, match="it was stopped"):
        loop.do(lambda: 7)
    with pytest.raises(Ended, match="it was stopped"):
        loop.take(1.0)
