"""The engine by example: what a step does, what a full pool does, what the door refuses."""

import math

import pytest

from llmcourse.engine import Engine, Request, SamplingParams, Status, VirtualClock
from llmcourse.engine.events import EventKind
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool
from llmcourse.policies import FCFS


def engine(num_blocks: int = 16, block_size: int = 4, batching: str = "mixed", **options) -> Engine:
    return Engine(MockExecutor(block_size, max_length=200), BlockPool(num_blocks, block_size), FCFS(), batching,
                  clock=VirtualClock(), checked=True, **options)


def kinds(engine: Engine) -> list[tuple[str, str | None]]:
    return [(event.kind.value, event.request) for event in engine.events]


def test_one_request_s_life() -> None:
    """Queued, scheduled, a step that fills and samples, steps that decode, finished."""
    e = engine()
    e.add(Request([5, 6, 7], SamplingParams(max_tokens=2), id="a"))
    assert [e.kind for e in e.step()] == ["SCHEDULED", "STEP", "NEW_TOKENS"]
    assert [e.kind for e in e.step()] == ["STEP", "NEW_TOKENS", "FINISHED"]
    assert e.step() == [] and e.idle
    assert e.requests["a"].output == MockExecutor(4).continue_alone([5, 6, 7], 2)
    record = e.records()[0]
    assert record.ttft == pytest.approx(0.01 + 3 * 0.0001) and record.tpot == pytest.approx(0.01 + 0.0001)


def test_mixed_chunks_a_long_prompt_beside_decodes() -> None:
    """Budget 6: the decode takes 1, the long prompt what is left, step after step."""
    e = engine(token_budget=6, max_running=4)
    e.add(Request([1] * 3, SamplingParams(max_tokens=8), id="short"))
    e.step()
    e.add(Request([2] * 14, SamplingParams(max_tokens=2), id="long"))
    batches = [next(ev for ev in e.step() if ev.kind == "STEP").data["batch"] for _ in range(3)]
    assert batches == [[("short", 3, 1), ("long", 0, 5)], [("short", 4, 1), ("long", 5, 5)],
                       [("short", 5, 1), ("long", 10, 4)]]


def test_static_closes_the_batch_until_its_longest_ends() -> None:
    e = engine(batching="static", max_running=2)
    for name, length in (("a", 1), ("b", 5), ("c", 1)):
        e.add(Request([1, 2], SamplingParams(max_tokens=length, ignore_eos=True), id=name))
    list(e.stream())
    order = [(kind, name) for kind, name in kinds(e) if kind in ("SCHEDULED", "FINISHED")]
    assert order == [("SCHEDULED", "a"), ("SCHEDULED", "b"), ("FINISHED", "a"), ("FINISHED", "b"),
                     ("SCHEDULED", "c"), ("FINISHED", "c")]


def test_continuous_fills_the_place_at_once() -> None:
    e = engine(batching="continuous", max_running=2)
    for name, length in (("a", 1), ("b", 5), ("c", 1)):
        e.add(Request([1, 2], SamplingParams(max_tokens=length, ignore_eos=True), id=name))
    list(e.stream())
    order = [(kind, name) for kind, name in kinds(e) if kind in ("SCHEDULED", "FINISHED")]
    assert order.index(("SCHEDULED", "c")) < order.index(("FINISHED", "b"))


@pytest.mark.parametrize("batching", ["continuous", "mixed"])
def test_decodes_are_not_starved_by_steadily_arriving_prompts(batching: str) -> None:
    """A new prompt before every step, each as long as the whole budget: the first request still gets its tokens."""
    e = engine(num_blocks=400, batching=batching, token_budget=8, max_running=8)
    e.add(Request([1, 2], SamplingParams(max_tokens=10, ignore_eos=True), id="first"))
    steps = 0
    while not e.requests["first"].done and steps < 30:
        e.add(Request([3] * 8, SamplingParams(max_tokens=1)))
        e.step()
        steps += 1
    assert steps <= (10 if batching == "mixed" else 20), f"{steps} steps for 10 tokens"


def test_a_victim_gives_back_what_the_step_had_given_it() -> None:
    """a gets a token, b's block then comes from a: a's token of the budget goes on to the long prompt."""
    class FirstGivesWay(FCFS):
        def victim(self, running, now):
            return running[0]
    e = Engine(MockExecutor(1), BlockPool(11, 1), FirstGivesWay(), "mixed", token_budget=3, clock=VirtualClock(),
               checked=True)
    for name, prompt in (("a", [1]), ("b", [1]), ("long", [1] * 8)):
        e.add(Request(prompt, SamplingParams(max_tokens=3, ignore_eos=True), id=name))
    e.step()
    events = e.step()
    assert [ev.request for ev in events if ev.kind == "PREEMPTED"] == ["a"]
    assert next(ev for ev in events if ev.kind == "STEP").data["batch"] == [("b", 1, 1), ("long", 1, 2)]


def test_nobody_new_comes_in_while_somebody_is_thrown_out() -> None:
    """v loses its blocks to a; n would fit into them and stands before v, but waits for the next step."""
    class ByName(FCFS):
        def key(self, request, now):
            return "anv".index(request.id)
    e = Engine(MockExecutor(1), BlockPool(6, 1), ByName(), clock=VirtualClock(), checked=True)
    for name, prompt in (("a", [1]), ("v", [1] * 4)):
        e.add(Request(prompt, SamplingParams(max_tokens=3, ignore_eos=True), id=name))
    e.step()
    e.add(Request([1], SamplingParams(max_tokens=1), id="n"))
    assert [ev.kind for ev in e.step()] == ["PREEMPTED", "STEP", "NEW_TOKENS"]
    assert "n" in [ev.request for ev in e.step() if ev.kind == "SCHEDULED"]


@pytest.mark.parametrize("batching", ["static", "continuous", "mixed"])
def test_the_only_running_request_may_fill_the_whole_pool(batching: str) -> None:
    """It outgrows block after block until the pool is full to the last slot, and finishes."""
    e = engine(num_blocks=3, batching=batching)
    e.add(Request([1] * 5, SamplingParams(max_tokens=8, ignore_eos=True), id="a"))    # 5 + 8 - 1 = 12 = 3 x 4
    list(e.stream())
    assert len(e.requests["a"].output) == 8 and e.counters.preemptions == 0


@pytest.mark.parametrize("batching", ["static", "continuous", "mixed"])
def test_two_requests_that_outgrow_the_pool_together_both_finish(batching: str) -> None:
    e = engine(num_blocks=4, batching=batching)
    for name in "ab":
        e.add(Request([1] * 5, SamplingParams(max_tokens=10, ignore_eos=True), id=name))
    list(e.stream())
    assert e.counters.preemptions >= 1 and e.counters.recomputed_tokens >= 5
    assert all(e.requests[n].output == MockExecutor(4).continue_alone([1] * 5, 10, True) for n in "ab")
    assert [n for k, n in kinds(e) if k == "PREEMPTED"] == ["b"] * e.counters.preemptions


def test_a_request_that_can_never_fit_is_refused_with_the_numbers() -> None:
    e = engine(num_blocks=3)
    with pytest.raises(UserError, match=r"5 prompt tokens \+ max_tokens 9 fill 4 blocks of 4 tokens, the pool has 3: "
                                        r"it could never finish; ask for at most 8 new tokens"):
        e.add(Request([1] * 5, SamplingParams(max_tokens=9)))


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Request([]), "the prompt is empty"),
    (lambda: Request([1] * 250, SamplingParams(max_tokens=1)), "exceed the model's 200 positions"),
    (lambda: Request([1, 64]), "token 64 at position 1"),
    (lambda: Request([1, -1]), "token -1 at position 1"),
    (lambda: Request([1, 2.0]), "token 2.0 at position 1"),                       # type: ignore[list-item]
    (lambda: Request([1, True]), "token True at position 1"),
    (lambda: Request([1], id="known"), "id 'known' exists already"),
    (lambda: Request([1], SamplingParams(max_tokens=0)), "max_tokens is 0"),
    (lambda: Request([1], SamplingParams(max_tokens=-3)), "max_tokens is -3"),
    (lambda: Request([1], SamplingParams(max_tokens=2.5)), "max_tokens is 2.5"),  # type: ignore[arg-type]
    (lambda: Request([1], SamplingParams(temperature=math.nan)), "temperature is nan"),
    (lambda: Request([1], SamplingParams(temperature=-1)), "temperature is -1"),
    (lambda: Request([1], SamplingParams(top_p=0)), "top_p is 0"),
    (lambda: Request([1], SamplingParams(top_p=math.nan)), "top_p is nan"),
    (lambda: Request([1], SamplingParams(top_k=-1)), "top_k is -1"),
])
def test_bad_input_is_one_clear_line_and_changes_nothing(make, message: str) -> None:
    e = engine()
    e.add(Request([1, 2], id="known"))
    before = (list(e.events), dict(e.requests), list(e.scheduler.waiting), e.pool.num_free)
    with pytest.raises(UserError, match=message) as error:
        e.add(make())
    assert "\n" not in str(error.value)
    assert before == (list(e.events), dict(e.requests), list(e.scheduler.waiting), e.pool.num_free)
    list(e.stream())
    assert e.requests["known"].status is Status.FINISHED


def test_abort_waiting_running_unknown_and_finished() -> None:
    e = engine(max_running=1)
    for name in ("runs", "waits", "lives"):
        e.add(Request([1] * 5, SamplingParams(max_tokens=4, ignore_eos=True), id=name))
    e.step()
    e.abort("runs")
    e.abort("waits")
    assert e.pool.num_free == 16
    list(e.stream())
    assert e.requests["lives"].finish_reason == "length"
    with pytest.raises(UserError, match="no request 'nobody' to abort"):
        e.abort("nobody")
    with pytest.raises(UserError, match="'lives' is finished already"):
        e.abort("lives")
    assert [k for k, n in kinds(e) if n == "runs"][-1] == "ABORTED"


def test_generate_serves_all_or_none_and_keeps_the_order() -> None:
    e = engine()
    prompts = [[1, 2, 3], [4], [5] * 9]
    done = e.generate(prompts, [SamplingParams(max_tokens=n) for n in (3, 7, 2)])
    assert [list(c.tokens) for c in done] == [MockExecutor(4).continue_alone(p, n)
                                              for p, n in zip(prompts, (3, 7, 2), strict=True)]
    with pytest.raises(UserError):
        e.generate([[1], []])
    assert e.idle and len(e.requests) == 3
    with pytest.raises(UserError, match="3 prompts came with 1 SamplingParams"):
        e.generate(prompts, [SamplingParams()])
    with pytest.raises(UserError, match="no tokenizer"):
        e.generate(["text"])


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(UserError, match="batching 'magic' is not one of static, continuous, mixed"):
        engine(batching="magic")
    with pytest.raises(UserError, match="1 <= max_running <= token_budget"):
        engine(max_running=0)


def test_illegal_transitions_raise() -> None:
    request = Request([1], id="x")
    with pytest.raises(RuntimeError, match="request x is waiting and cannot become finished"):
        request.become(Status.FINISHED)


def test_check_invariants_notices_lost_and_doubled_requests() -> None:
    """A gate that cannot close is no gate."""
    for spoil in (lambda e: e.scheduler.running.clear(), lambda e: e.scheduler.waiting.add(e.requests["a"]),
                  lambda e: setattr(e.requests["a"], "computed", 99), lambda e: e.pool.free("a")):
        e = engine()
        e.add(Request([1, 2, 3], SamplingParams(max_tokens=3), id="a"))
        e.step()
        spoil(e)
        with pytest.raises(AssertionError):
            e.check_invariants()


def test_engine_imports_no_torch() -> None:
    import subprocess
    import sys
    code = ("import sys, llmcourse.engine, llmcourse.policies, llmcourse.executors, llmcourse.kv, llmcourse.model, "
            "llmcourse.metrics.records; assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_events_of_a_step_carry_what_the_log_promises() -> None:
    e = engine()
    e.add(Request([1] * 6, SamplingParams(max_tokens=1), id="a"))
    step = next(event for event in e.step() if event.kind is EventKind.STEP)
    assert step.data == {"step": 0, "start": 0.0, "batch": [("a", 0, 6)], "blocks": [("a", [0, 1])], "waiting": 0,
                         "running": 1, "used_blocks": 2, "num_blocks": 16, "block_size": 4}
