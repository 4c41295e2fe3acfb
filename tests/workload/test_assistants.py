"""Assistants: what is shared is shared, turns come in order, and the window is never exceeded."""

import pytest

from llmcourse.errors import UserError
from llmcourse.workload import Assistants
from llmcourse.workload.sharing import hit_rate


def played(load: Assistants) -> list[list[int]]:
    arrivals = load.start()
    assert len(arrivals) <= load.window
    while (arrival := load.after(1.0)) is not None:
        arrivals.append(arrival)
    return [(arrival.session, arrival.prompt_tokens, arrival.prefix) for arrival in arrivals]


def test_every_turn_repeats_the_one_before_and_adds_a_message() -> None:
    load = Assistants(assistants=2, sessions=5, turns=3, window=4, system=2, message=1)
    turns = played(load)
    assert len(turns) == 15 and turns == played(load), "the same seed plays the same"
    assert turns != played(Assistants(assistants=2, sessions=5, turns=3, window=4, system=2, message=1, seed=1))
    said: dict[str, tuple[int, ...]] = {}
    for session, tokens, prefix in turns:
        before = said.get(session, prefix[:2])
        assert prefix[:len(before)] == before and len(prefix) == len(before) + 1 and tokens == 512 * len(prefix)
        said[session] = prefix
    assert {len(prefix) for prefix in said.values()} == {5}
    assert len({prefix[:2] for prefix in said.values()}) == 2
    assert len({block for prefix in said.values() for block in prefix}) == 2 * 2 + 5 * 3


def test_the_books_say_what_an_infinite_cache_would_find() -> None:
    load = Assistants(sessions=12, turns=4)
    arrivals = load.start()
    while (arrival := load.after(0.0)) is not None:
        arrivals.append(arrival)
    assert sum(arrival.prompt_tokens for arrival in arrivals) == load.prompt_tokens
    assert hit_rate(arrivals) == pytest.approx(1 - load.different_tokens / load.prompt_tokens)


def test_nothing_to_ask_is_refused() -> None:
    with pytest.raises(UserError, match="at least 1"):
        Assistants(window=0)
