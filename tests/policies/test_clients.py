"""Who waits and whose prompt is paid, against the plainest bookkeeping there is."""

from hypothesis import given
from hypothesis import strategies as st

from llmcourse.policies.clients import Clients
from tests.policies.bench import ask


@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "owes", "forget"]), st.integers(0, 4)), max_size=40))
def test_it_says_who_waits_and_charges_a_prompt_once(moves: list[tuple[str, int]]) -> None:
    clients, requests = Clients(), [ask(1, id=str(n), tenant="aab"[n % 3]) for n in range(5)]
    queued: set[int] = set()
    paid: set[int] = set()
    for move, number in moves:
        request = requests[number]
        if move == "enter" and number not in queued:
            clients.enter(request)
            queued.add(number)
        elif move == "leave":
            assert clients.leave(request) == (number in queued)
            queued.discard(number)
        elif move == "owes":
            assert clients.owes_prompt(request) == (number not in paid)
            paid.add(number)
        elif move == "forget":
            clients.forget(request)
            paid.discard(number)
        waiting = {requests[n].tenant for n in queued}
        assert set(clients.waiting()) == waiting and len(clients.waiting()) == len(waiting)
        assert {tenant for tenant in "ab" if clients.waits(tenant)} == waiting
