"""Several answers to one prompt: the prompt is computed once, and only the block they part in is copied."""

import pytest

from llmcourse.engine import Engine, Request, SamplingParams, Status, VirtualClock
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.executors.recorded import rerun
from llmcourse.kv import BlockPool, ContiguousPool, Memory


def engine(pool: Memory | None = None, **options) -> Engine:
    pool = pool or BlockPool(32, 4)
    return Engine(MockExecutor(pool.block_size), pool, clock=VirtualClock(), checked=True, **options)


def ask(n: int, prompt: int = 10, max_tokens: int = 6) -> Request:
    return Request(list(range(1, prompt + 1)), SamplingParams(max_tokens, n=n, ignore_eos=True), id="a")


def test_four_answers_share_two_whole_blocks_and_copy_the_third() -> None:
    served = engine()
    request = served.add(ask(4))
    served.step()                                             # the prompt, once: 10 tokens in 3 blocks
    assert served.counters.computed_tokens == 10 and served.pool.num_used == 3
    served.step()                                             # the first answer goes on, the others fork
    tables = [served.pool.table(sibling.id) for sibling in request.siblings]
    assert all(table[:2] == tables[0][:2] for table in tables) and len({table[2] for table in tables}) == 4
    assert served.pool.num_used == 2 + 4
    assert served.counters.forked_tokens == 3 * 9 and served.counters.copied_blocks == 3
    assert served.counters.computed_tokens == 10 + 1 + 3      # each computes the prompt's last token for itself
    list(served.stream())
    assert len({tuple(sibling.output) for sibling in request.siblings}) == 1     # the mock is greedy
    assert request.output == MockExecutor(4).continue_alone(request.prompt, 6, ignore_eos=True)


def test_contiguous_memory_cannot_share_and_computes_every_prompt() -> None:
    served = engine(ContiguousPool(128, 1))
    request = served.add(ask(4))
    list(served.stream())
    assert served.counters.forked_tokens == 0 and served.counters.computed_tokens == 4 * (10 + 5)
    assert len({tuple(sibling.output) for sibling in request.siblings}) == 1


def test_when_the_first_is_given_up_the_next_computes_the_prompt() -> None:
    served = engine(token_budget=4, max_running=4)            # the prompt takes three steps
    request = served.add(ask(4))
    served.step()
    served.abort("a")
    served.abort("a/2")
    list(served.stream())
    assert [sibling.status for sibling in request.siblings] == [
        Status.ABORTED, Status.FINISHED, Status.ABORTED, Status.FINISHED]
    assert served.counters.forked_tokens == 9                 # the fourth from the second


def test_an_answer_that_is_over_with_its_first_token_leaves_the_prompt_to_the_next() -> None:
    served = engine()
    request = served.add(ask(3, max_tokens=1))
    list(served.stream())
    assert all(sibling.num_output == 1 for sibling in request.siblings)


def test_completions_come_one_behind_the_other() -> None:
    done = engine().generate([[1, 2, 3], [4, 5]], [SamplingParams(3, n=2, ignore_eos=True), SamplingParams(2)])
    assert [completion.prompt for completion in done] == [(1, 2, 3), (1, 2, 3), (4, 5)]


def test_each_answer_has_a_seed_of_its_own_and_the_same_limits() -> None:
    request = engine().add(Request([1], SamplingParams(5, temperature=1.0, seed=40, n=3), tenant="t", priority=2))
    assert [sibling.sampling.seed for sibling in request.siblings] == [40, 41, 42]
    assert {(s.tenant, s.priority, s.sampling.max_tokens) for s in request.siblings} == {("t", 2, 5)}


def test_a_name_that_an_answer_would_take_is_refused_with_all_of_them() -> None:
    served = engine()
    served.add(Request([1], id="a/2"))
    with pytest.raises(UserError, match="'a/2' exists already"):
        served.add(ask(3))
    assert list(served.requests) == ["a/2"]
    with pytest.raises(UserError, match="n is 0"):
        SamplingParams(n=0)


def test_a_recorded_family_is_followed_as_one() -> None:
    served = engine()
    served.add(ask(3))
    list(served.stream())
    again = rerun(served.events)
    assert again.counters == served.counters and again.counters.forked_tokens == 18
