"""QLM: groups by class and length, deadlines first, and eviction of who can wait when a group would be late."""

import pytest

from llmcourse.engine import Engine, Policy, Request
from llmcourse.engine.replay import replay
from llmcourse.errors import UserError
from llmcourse.metrics.slo import attainment
from llmcourse.metrics.summary import summary
from llmcourse.policies import EDF, FCFS, QLM
from llmcourse.policies.groups import Groups
from llmcourse.workload import SLO, Arrival, Gamma, Lognormal, Poisson, merge, open_loop
from tests.policies.bench import ask, first_tokens, mocked, serve

CHAT, BATCH = SLO(ttft=2.0), SLO(ttft=240.0)


def arrived(output: int, time: float, slo: SLO | None = CHAT) -> Request:
    request = ask(output, slo=slo)
    request.arrival = time
    return request


def test_groups_are_of_one_class_and_about_one_length_and_not_too_large() -> None:
    groups = Groups(size=2, default_ttft=60.0)
    requests = [arrived(20, 1.0), arrived(30, 2.0), arrived(25, 3.0), arrived(200, 4.0), arrived(20, 5.0, BATCH),
                arrived(20, 6.0, None)]
    for request in requests:
        groups.join(request)
    sizes = [(group.kind[0], len(group.members)) for group in groups]
    assert sizes == [(2.0, 2), (2.0, 1), (2.0, 1), (240.0, 1), (60.0, 1)]
    first = groups.first()
    assert first is groups.of(requests[0]) is groups.of(requests[1]) and first is not None and first.due == 3.0
    groups.leave(requests[0])
    assert first.due == 4.0                                   # of those who still wait
    groups.leave(requests[1])
    groups.leave(requests[1])
    assert len(list(groups)) == 4 and groups.first() is groups.of(requests[2])


def test_lengths_are_learnt_from_those_who_have_finished() -> None:
    policy = QLM()
    engine = mocked(policy, slots=4)
    serve(engine, [(0.0, ask(20, id=f"r{n}", slo=CHAT)) for n in range(3)])
    learnt = policy.groups.outputs(arrived(31, 0.0), 5)
    assert (learnt.count, learnt.mean, learnt.variance) == (5, 20, 0)
    assert policy.groups.outputs(arrived(200, 0.0)).mean == 200           # of this length nobody has finished
    assert policy.rate(engine.clock.now) == pytest.approx(3)              # three at a time, a token each a second


def test_deadlines_go_first_and_a_group_is_served_in_order_of_arrival() -> None:
    engine = mocked(QLM(confidence=0.5))
    late = [(0.0, ask(2, id=f"batch{n}", slo=SLO(ttft=100.0))) for n in range(3)]
    ends = serve(engine, [*late, *[(1.0 + n, ask(2, id=f"chat{n}", slo=SLO(ttft=50.0))) for n in range(2)]])
    order = sorted(ends, key=ends.__getitem__)
    assert order == ["batch0", "chat0", "chat1", "batch1", "batch2"]


def test_who_can_wait_gives_way_when_a_group_would_be_late() -> None:
    """One slot, held for 60 s by a batch request; the chat must have begun after 10 s."""
    first = {}
    for policy in (EDF(), QLM(tokens_per_second=1.0)):
        engine = mocked(policy)
        ends = serve(engine, [(0.0, ask(60, id="batch", slo=BATCH)), (5.0, ask(4, id="chat", slo=SLO(ttft=10.0)))])
        first[type(policy)] = first_tokens(engine)["chat"]
    assert ends["batch"] > 60 and first[EDF] > 60 and first[QLM] <= 15 and engine.counters.preemptions == 1


def test_who_would_be_just_in_time_waits_a_step_longer() -> None:
    """A wait of 20 s is foretold. With 20 s left that is no miss; a step later, with 19 s left, it is."""
    engine = mocked(QLM(tokens_per_second=1.0))
    serve(engine, [(0.0, ask(20, id="batch", slo=BATCH)), (5.0, ask(4, id="chat", slo=SLO(ttft=20.0)))])
    assert first_tokens(engine)["chat"] == 7.0 and engine.counters.preemptions == 1


def test_when_the_first_group_has_gone_the_next_may_be_urgent_at_the_same_moment() -> None:
    policy = QLM(group_size=1, tokens_per_second=1.0)
    batch = arrived(60, 0.0, BATCH)
    chats = [arrived(4, 1.0), arrived(4, 1.5)]
    for request in (batch, *chats):
        policy.on_queued(request, 1.5)
    policy.on_scheduled(batch, 1.5)
    first, second = (policy.key(chat, 2.0)[0] for chat in chats)
    assert (first, second) == (1, 2)
    policy.on_scheduled(chats[0], 2.0)
    assert policy.key(chats[1], 2.0)[0] == 1
    policy.on_preempted(batch, 2.0)
    assert policy.key(batch, 2.0)[0] == 2                     # it runs no longer


@pytest.mark.parametrize("slo", [SLO(ttft=10.0), SLO(ttft=9.0), None])
def test_nobody_gives_way_to_its_own_class_or_to_one_that_has_time(slo: SLO | None) -> None:
    engine = mocked(QLM(tokens_per_second=1.0))
    serve(engine, [(0.0, ask(30, id="a", slo=SLO(ttft=9.0))), (1.0, ask(4, id="b", slo=slo))])
    assert engine.counters.preemptions == 0


def test_who_is_past_its_own_deadline_is_left_alone() -> None:
    """Chats without end evict the batch request until it is late itself; then it runs to its end."""
    engine = mocked(QLM(tokens_per_second=1.0, default_ttft=40.0))
    chats = [(2.0 + 5 * n, ask(4, id=f"chat{n}", slo=SLO(ttft=3.0))) for n in range(40)]
    ends = serve(engine, [(0.0, ask(50, id="batch")), *chats])
    assert engine.counters.preemptions > 2
    assert ends["batch"] < 110 < ends["chat39"]


def two_classes(rate: float) -> list[Arrival]:
    chats = open_loop(Gamma(rate, 3.0), Lognormal.of_moments(200, 150), Lognormal.of_moments(100, 60), 120, seed=1,
                      tenant="chat", slo=CHAT)
    batch = open_loop(Poisson(rate / 2), Lognormal.of_moments(400, 200), Lognormal.of_moments(500, 200), 60, seed=2,
                      tenant="batch", slo=BATCH)
    return merge(chats, batch)


def run(policy: Policy) -> tuple[float, float]:
    """Share of requests within their SLO, and output tokens/s."""
    engine = Engine.simulated("Llama 2 7B", "A10", policy=policy, num_blocks=600, preemption="swap", host_blocks=6000,
                              max_running=64)
    table = replay(engine, two_classes(2.0))
    assert table.finished.all()
    return attainment(table).both, summary(table).output_rate


def test_two_classes_keep_more_of_their_promises_at_about_the_same_tokens_a_second() -> None:
    (fcfs, fcfs_rate), (edf, _), (qlm, qlm_rate) = run(FCFS()), run(EDF()), run(QLM())
    assert fcfs < 0.8 and qlm >= edf > fcfs and qlm > 0.95
    assert qlm_rate == pytest.approx(fcfs_rate, rel=0.05)


def test_nonsense_is_refused() -> None:
    with pytest.raises(UserError, match="group_size 0"):
        QLM(group_size=0)
    with pytest.raises(UserError, match="tokens_per_second is 0"):
        QLM(tokens_per_second=0)


def test_somebody_who_is_late_already_does_not_make_those_behind_it_late() -> None:
    """Nothing can save the first, which was promised too much; the second can still be in time if both get on now."""
    engine = mocked(QLM(tokens_per_second=1.0))
    serve(engine, [(0.0, ask(60, id="batch", slo=BATCH)), (1.5, ask(4, id="late", slo=SLO(ttft=0.2))),
                   (2.0, ask(4, id="chat", slo=SLO(ttft=20.0)))])
    assert first_tokens(engine)["late"] < first_tokens(engine)["chat"] <= 22.0
