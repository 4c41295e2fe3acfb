"""Who has ended is forgotten: a policy that serves for months must not grow with the requests it has served."""

from collections.abc import Iterator

import pytest

from llmcourse.engine import Policy, Request
from tests.policies.bench import ask, mocked
from tests.policies.makers import MAKERS


def kept(thing: object, depth: int = 0) -> Iterator[str]:
    """Ids of requests anywhere inside an object: as the requests themselves, or as their names."""
    if isinstance(thing, Request):
        yield thing.id
    elif isinstance(thing, str):
        yield thing
    elif isinstance(thing, dict):
        for pair in thing.items():
            yield from kept(pair, depth + 1)
    elif isinstance(thing, list | tuple | set):
        for each in thing:
            yield from kept(each, depth + 1)
    elif depth < 6 and type(thing).__module__.startswith("llmcourse.policies"):
        yield from kept(vars(thing), depth + 1)


@pytest.mark.parametrize("make", MAKERS)
def test_nothing_is_kept_of_who_has_ended(make) -> None:  # type: ignore[no-untyped-def]
    policy: Policy = make()
    engine = mocked(policy, slots=2, num_blocks=16, step=0.01)
    names = {engine.add(ask(6 + 5 * n % 11, 1 + n % 9, id=f"request {n}", tenant="ab"[n % 2])).id for n in range(12)}
    for _ in range(3):
        engine.step()
    engine.abort(engine.scheduler.running[0].id)
    engine.abort(next(iter(engine.scheduler.waiting)).id)
    while not engine.idle:
        engine.step()
    assert not names & set(kept(policy))
