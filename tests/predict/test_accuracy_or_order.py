"""The lesson: accuracy prefers one classifier, the clock the other."""

import pytest

from llmcourse.policies import SJF
from llmcourse.predict.accuracy_or_order import Outcome, accuracy_or_order


@pytest.fixture(scope="module")
def outcomes() -> dict[int | None, Outcome]:
    return {outcome.width: outcome for outcome in accuracy_or_order(SJF, count=400, widths=(10, 819))}


def test_the_wide_one_is_right_and_the_narrow_one_knows_the_order(outcomes: dict[int | None, Outcome]) -> None:
    wide, narrow = outcomes[819], outcomes[10]
    assert wide.accuracy is not None and wide.accuracy > 0.95 and narrow.accuracy is not None and narrow.accuracy < 0.2
    assert wide.tau is not None and wide.tau < 0.3 and narrow.tau is not None and narrow.tau > 0.6


def test_order_shortens_the_mean_time_and_accuracy_does_not(outcomes: dict[int | None, Outcome]) -> None:
    gain = {width: 1 - outcome.mean_jct / outcomes[None].mean_jct for width, outcome in outcomes.items()}
    assert gain[10] > 0.75 * gain[0] > 0
    assert gain[819] < 0.5 * gain[10]
    rates = [outcome.tokens_per_second for outcome in outcomes.values()]
    assert max(rates) < 1.02 * min(rates), "who goes first changes who waits, not how much is said"
