"""The probe: reads hidden states, looks on while an answer is written, and never looks ahead."""

import numpy as np
import pytest
import torch

from llmcourse.engine import Engine, Request, SamplingParams
from llmcourse.errors import UserError
from llmcourse.model import load_model
from llmcourse.policies import POLICIES
from llmcourse.predict import Constant, LengthData, score
from llmcourse.predict.probe import STARTS, WIDTHS, Probe, _bins, hidden_states, one_token_later


@pytest.fixture(scope="module")
def split() -> tuple[LengthData, LengthData]:
    return LengthData.load().split()


@pytest.fixture(scope="module")
def probe(split: tuple[LengthData, LengthData]) -> Probe:
    told: list[tuple[int, int]] = []
    made = Probe(steps=400).fit(split[0], lambda *done: told.append(done))
    assert told[-1][0] == told[-1][1] and [done for done, _ in told] == sorted(done for done, _ in told)
    return made


def test_from_the_prompt_it_beats_the_median(probe: Probe, split: tuple[LengthData, LengthData]) -> None:
    mine, nothing = score(probe, split[1]), score(Constant().fit(split[0]), split[1])
    assert mine.mae is not None and nothing.mae is not None
    assert mine.mae < 0.85 * nothing.mae and mine.tau > 0.5


def errors(probe: Probe, test: LengthData) -> tuple[float, float]:
    """Mean error of what remains, over all tokens: looking on, and from the first guess alone."""
    looking, first = [], []
    for prompt, answer in zip(test.tokens, test.answers, strict=True):
        left, said = len(answer) - np.arange(len(answer)), probe.track(prompt, answer[:-1])
        looking += np.abs(said - left).tolist()
        first += np.abs(np.maximum(said[0] - np.arange(len(answer)), 1) - left).tolist()
    return float(np.mean(looking)), float(np.mean(first))


def test_looking_on_makes_it_better(probe: Probe, split: tuple[LengthData, LengthData]) -> None:
    looking, first = errors(probe, split[1].select(range(0, len(split[1]), 2)))
    assert looking < 0.95 * first


def test_it_knows_no_token_that_has_not_come(probe: Probe, split: tuple[LengthData, LengthData]) -> None:
    """What it says after k tokens is the same whatever comes then; a request tells it no more than its tokens do."""
    prompt, answer = split[1].tokens[0], list(max(split[1].answers, key=len)[:40])
    whole = probe.track(prompt, answer)
    request = Request(prompt, SamplingParams(max_tokens=512))
    for known in (0, 1, 7, 39):
        other = answer[:known] + [9] * 5
        assert probe.track(prompt, other)[:known + 1] == pytest.approx(whole[:known + 1], rel=1e-3)
        request.tokens = prompt + answer[:known]
        assert probe.remaining(request) == pytest.approx(whole[known], rel=1e-3) == probe.remaining(request)
    assert probe.predict([prompt])[0] == pytest.approx(whole[0], rel=1e-3)


@pytest.mark.parametrize("policy", ["isrtf", "trail"])
def test_policies_that_predict_again_ask_it(probe: Probe, split: tuple[LengthData, LengthData], policy: str) -> None:
    """On the real engine, with one slot: it is asked as answers grow, and all of them end."""
    said: dict[str, float] = {}

    def remaining(request: Request) -> float:
        said[request.id] = probe.remaining(request)
        return said[request.id]

    engine = Engine.from_model("course-tiny", policy=POLICIES[policy](remaining=remaining), device="cpu",
                               threads=1, max_running=1, checked=True)
    asked = [engine.add(Request(tokens, SamplingParams(max_tokens=30))) for tokens in split[1].tokens[:4]]
    while not engine.idle:
        engine.step()
    assert all(request.finish_reason for request in asked)
    assert set(said) == {request.id for request in asked} and min(said.values()) >= 1


def test_permuted_answers_of_held_out_prompts_change_nothing(split: tuple[LengthData, LengthData]) -> None:
    train, test = (side.select(range(40)) for side in split)
    turned = LengthData(test.prompts, test.lengths[::-1].copy(), test.kinds, test.answers[::-1])
    said = [Probe(steps=20).fit(train).predict(side.prompts) for side in (test, turned)]
    assert said[0].tobytes() == said[1].tobytes()


def test_states_are_those_of_the_model_and_padding_changes_nothing() -> None:
    model, _ = load_model("course-tiny", device="cpu")
    texts = [[1, 50, 60, 2], [1, 70, 2]]
    last = model.config.num_layers - 1
    together = model.norm(hidden_states(model, texts, last))
    for row, text in enumerate(texts):
        alone = model.hidden(torch.tensor([text]))[0]
        assert torch.allclose(together[row, :len(text)], alone, atol=1e-4)


def test_belief_moves_down_one_token_at_a_time() -> None:
    """Somebody known to be in the bin of 8 to 11 tokens expects one token less after one token."""
    typical = STARTS + WIDTHS / 2 - 0.5
    for place in range(1, len(STARTS)):
        believed = np.eye(len(STARTS))[place]
        after = one_token_later(believed)
        assert after.sum() == pytest.approx(1) and (after >= 0).all()
        assert set(np.flatnonzero(after)) <= {place - 1, place}
        assert believed @ typical - after @ typical == pytest.approx((typical[place] - typical[place - 1])
                                                                     / WIDTHS[place])
    assert one_token_later(np.eye(len(STARTS))[0])[0] == 1             # one was left, and then another came


def test_bins_hold_what_they_say_and_belief_is_carried_by_the_rule_of_bayes(probe: Probe) -> None:
    assert STARTS[_bins(torch.tensor([1, 2, 4, 5, 7, 8, 383, 384, 5000]))].tolist() == [1, 2, 4, 4, 6, 8, 256, 384, 384]
    chances = np.random.default_rng(0).dirichlet(np.ones(len(STARTS)), size=3)
    said = probe.smoothed(chances)
    assert (said[0] == chances[0]).all()
    for token in (1, 2):
        expected = one_token_later(said[token - 1]) * chances[token]
        assert said[token] == pytest.approx(expected / expected.sum())
    surely = np.eye(len(STARTS))[[9, 2]]                 # 32 or more, and then, beyond doubt, 3: believe the newer
    assert (probe.smoothed(surely)[1] == surely[1]).all()


def test_without_answers_or_layer_it_says_so(split: tuple[LengthData, LengthData]) -> None:
    train = split[0]
    with pytest.raises(UserError, match="no answers"):
        Probe().fit(LengthData(train.prompts, train.lengths))
    with pytest.raises(UserError, match="layers 0 to 5"):
        Probe(layer=6)
