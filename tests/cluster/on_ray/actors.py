"""Engines for actors: mocked, where one wrong block changes the output, and slow enough to be met in the middle."""

import time
from functools import partial

from llmcourse.cluster import Link, RayDriver, Reporting, Terms
from llmcourse.engine import Engine, Request, SamplingParams
from llmcourse.engine.preemption import Preemption
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool, PrefixPool

BLOCK = 4
STEP = 0.005                             # seconds that a step takes


class PacedExecutor(MockExecutor):
    """A mock that takes real time."""

    def execute(self, batch):
        time.sleep(STEP)
        return super().execute(batch)


class BrokenExecutor(PacedExecutor):
    """Fails at a prompt that begins with 13."""

    def execute(self, batch):
        if any(item.request.prompt[0] == 13 for item in batch.items):
            raise RuntimeError("the GPU has fallen off the bus")
        return super().execute(batch)


def engine(num_blocks=160, prefix=False, swap=False, max_running=6, executor=PacedExecutor):
    pool = PrefixPool(num_blocks, BLOCK) if prefix else BlockPool(num_blocks, BLOCK)
    return Engine(executor(BLOCK), pool, max_running=max_running, token_budget=32, checked=True,
                  preemption=Preemption("swap", 16) if swap else None, eos_ids=frozenset({0}))


def no_engine():
    raise ValueError("there is no such model")


def cluster(instances=2, **options):
    """A driver over equal mocked engines, with a link on which a copy can be watched."""
    return RayDriver(partial(engine, executor=BrokenExecutor), instances, link=LINK,
                     terms=Terms(BLOCK, last_blocks=6), reporting=Reporting(0.05), **options)


def ask(prompt=(1, 2, 3), max_tokens=150, **options):
    return Request(list(prompt), SamplingParams(max_tokens=max_tokens, ignore_eos=True, seed=1), **options)


def alone(request):
    """What the request must come out as."""
    return MockExecutor(BLOCK).continue_alone(request.prompt, request.sampling.max_tokens, request.sampling.ignore_eos)


def wait_for(driver, condition, seconds=300.0):
    """Let the driver go on until it holds; a machine on which many others work may take long."""
    until = driver.now + seconds
    while not condition():
        assert driver.now < until, "it does not come true"
        driver.advance()


def at_least(driver, count):
    """Wait until so many instances live; missing ones are started, which takes seconds."""
    for _ in range(count - len(driver.alive)):
        driver.start()
    wait_for(driver, lambda: len(driver.alive) >= count)


def tokens_of(driver, request, count):
    """Wait until a client has so many tokens."""
    wait_for(driver, lambda: len(driver.tokens(request.id)) >= count)


def moving(driver, requests, until, method=None, after=3):
    """Requests that ``requests()`` makes, and the move of the first when ``until(migration)`` holds or it is over.

    It begins ``after`` so many tokens. On a busy machine a request may end before it has moved; then others are made.
    """
    for _ in range(20):
        asked = [driver.add(request) for request in requests()]
        tokens_of(driver, asked[0], after)
        source = driver.owner(asked[0].id)
        if source is not None:
            migration = driver.migrate(asked[0].id, other(driver, source), method)
            wait_for(driver, lambda move=migration: until(move) or move.outcome)
            if migration.outcome != "aborted" or "has ended" not in migration.reason:
                return asked, migration
        driver.finish()
        check_all(driver, asked)
    raise AssertionError("twenty requests have ended before they had moved")


def other(driver, number):
    """A living instance that is not this one."""
    return next(remote.number for remote in driver.alive if remote.number != number)


def check_all(driver, requests):
    """Everybody has the tokens of a request alone, and no block is left over anywhere."""
    for request in requests:
        stream = driver.gateway.streams[request.id]
        assert stream.reason is not None, f"{request.id} has not ended"
        if request.id in driver.failed or stream.reason == "abort":
            assert stream.output == alone(request)[:len(stream.output)]
        else:
            assert stream.output == alone(request), f"{request.id} came out wrong"
    driver.check_invariants()
    for remote in driver.alive:
        assert driver.ray.get(remote.handle.audit.remote()).blocks == 0, "blocks are left over"


LINK = Link(400_000, 0.001)              # a block of mocked KV takes 10 ms
