"""What must hold of a migration in every world: the same checks for virtual, local and Ray drivers.

Each check is given a driver of two idle instances of mocked engines, whose output tells of every wrong block. Only the
common face of drivers is used, and `advance` is called until what is awaited comes true.
"""

from itertools import pairwise

from llmcourse.cluster.orders import Adopt, Copy, Grow, Look, Release, Reserve, Stop
from llmcourse.engine import Request, SamplingParams
from llmcourse.executors import MockExecutor

STEPS = 200_000


def ask(prompt=(1, 2, 3), max_tokens=150):
    return Request(list(prompt), SamplingParams(max_tokens=max_tokens, ignore_eos=True, seed=1))


def alone(request):
    """What the request must come out as."""
    return MockExecutor(4).continue_alone(request.prompt, request.sampling.max_tokens, request.sampling.ignore_eos)


def until(driver, condition):
    """Let the driver go on until it holds."""
    for _ in range(STEPS):
        if condition():
            return
        driver.advance(driver.now + 0.005)
    raise AssertionError("it does not come true")


def begun(driver, max_tokens=150):
    """A request that has had 40 tokens, and the number of the instance it is not on."""
    request = driver.add(ask(max_tokens=max_tokens))
    until(driver, lambda: len(driver.tokens(request.id)) >= 40)
    owner = driver.owner(request.id)
    return request, next(instance.number for instance in driver.alive if instance.number != owner)


def ended(driver, *requests):
    """Serve until these have ended, and check that each client has been sent exactly what it should."""
    until(driver, lambda: all(driver.gateway.streams[request.id].reason is not None for request in requests))
    for request in requests:
        assert driver.tokens(request.id) == alone(request)
    until(driver, lambda: all(migration.outcome for migration in driver.migrations))
    driver.check_invariants()


def orders(migration):
    return [type(stage.order) for stage in migration.stages]


def moves_unseen(driver, method):
    """It ends on the other instance, and its client has been sent the tokens it would have been sent anyway."""
    request, destination = begun(driver)
    migration = driver.migrate(request.id, destination, method)
    until(driver, lambda: migration.outcome)
    assert migration.outcome == "moved", migration.reason
    assert driver.owner(request.id) in (destination, None)
    ended(driver, request)
    assert orders(migration)[-2:] == [Adopt, Release] and Stop in orders(migration)
    assert (migration.bytes > 0) == (method in ("live", "stop-and-copy"))


def copies_while_decoding(driver):
    """A live copy sends whole blocks in several stages while tokens go on coming, and stops only for the last."""
    request, destination = begun(driver)
    migration = driver.migrate(request.id, destination, "live")
    before = len(driver.tokens(request.id))
    until(driver, lambda: migration.stopped_at is not None or migration.outcome)
    assert len(driver.tokens(request.id)) > before, "nothing was decoded while it was copied"
    ended(driver, request)
    said = orders(migration)
    assert said[:3] == [Look, Reserve, Copy] and said.index(Stop) > said.index(Copy)
    copies = [stage.order for stage in migration.copies]
    assert all(copy.last == after.first for copy, after in pairwise(copies)), "a block was sent twice, or never"
    assert Grow in said


def is_undone(driver, stage, side):
    """Whoever dies when a migration gives this order: the request ends with its tokens, and nobody keeps anything."""
    request, destination = begun(driver)
    source = driver.owner(request.id)
    migration = driver.migrate(request.id, destination, "live")
    until(driver, lambda: migration.outcome or isinstance(migration.order, stage))
    driver.kill(source if side == "source" else destination)
    ended(driver, request)
    assert migration.outcome is not None
    left = driver.alive[0].number
    assert left == (destination if side == "source" else source)


def given_up_in_mid_copy(driver):
    """Its owner aborts it while it is copied: both sides forget it."""
    request, destination = begun(driver)
    migration = driver.migrate(request.id, destination, "live")
    until(driver, lambda: migration.outcome or isinstance(migration.order, Copy))
    driver.abort(request.id)
    until(driver, lambda: migration.outcome and driver.owner(request.id) is None)
    assert migration.outcome == "aborted"
    assert driver.tokens(request.id) == alone(request)[:len(driver.tokens(request.id))]
    driver.check_invariants()


def ends_in_mid_copy(driver):
    """It ends by itself while it is copied: the migration is aborted, the destination drops what it kept."""
    request, destination = begun(driver, max_tokens=44)
    migration = driver.migrate(request.id, destination, "live")
    ended(driver, request)
    assert migration.outcome == "aborted" and "has ended" in migration.reason
