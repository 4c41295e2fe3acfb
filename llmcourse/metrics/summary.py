"""A run in a dozen numbers: how much was served, and how long it took.

Rates are over the whole run, from the first arrival to the last token, so the filling and the emptying of the machine
count: a short run looks slower than the same load for an hour. A time enters a distribution only when it came about:
TTFT as soon as there is a first token, the others when a request has finished. What did not finish is counted beside
them, because a mean over survivors flatters the service that loses most. Names are vLLM's. Weeks 3 and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from llmcourse.metrics.percentile import Distribution, distribution, none_for_nan
from llmcourse.metrics.table import Table
from llmcourse.metrics.words import counted

if TYPE_CHECKING:
    from pandas import DataFrame

VLLM_NAMES = {
    "ttft": "vllm:time_to_first_token_seconds",
    "tpot": "vllm:request_time_per_output_token_seconds",
    "itl": "vllm:inter_token_latency_seconds",
    "e2e": "vllm:e2e_request_latency_seconds",
    "queue": "vllm:request_queue_time_seconds",
    "prefill": "vllm:request_prefill_time_seconds",
    "decode": "vllm:request_decode_time_seconds",
    "normalised": "normalised latency (s/token)",
}
LABELS = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "end to end", "queue": "queue", "prefill": "prefill",
          "decode": "decode", "normalised": "normalised"}


@dataclass(frozen=True)
class Summary:
    """One run. ``duration`` in seconds, rates a second, distributions in seconds (``normalised`` in s/token).

    ``tpot`` is a request's mean time between its tokens, ``itl`` every single one; ``normalised`` is end-to-end over
    output tokens, the latency of Orca's and vLLM's figures.
    """

    requests: int
    finished: int
    shed: int
    aborted: int
    unfinished: int
    duration: float
    request_rate: float
    output_rate: float
    prompt_rate: float
    prompt_tokens: int
    output_tokens: int
    preemptions: int
    ttft: Distribution
    tpot: Distribution
    itl: Distribution
    e2e: Distribution
    queue: Distribution
    prefill: Distribution
    decode: Distribution
    normalised: Distribution

    def as_dict(self) -> dict[str, object]:
        """Plain numbers, ready for JSON: None for what there was no sample of."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value.as_dict() if isinstance(value, Distribution) else none_for_nan(value)
                for name, value in values.items()}

    def frame(self) -> DataFrame:
        """The distributions as a pandas DataFrame, a row each, under vLLM's names."""
        from pandas import DataFrame

        rows = {name: getattr(self, name) for name in LABELS}
        return DataFrame([row.as_dict() for row in rows.values()], dtype=float,
                         index=[VLLM_NAMES[name] for name in rows])

    def __str__(self) -> str:
        """A table to read."""
        return self.text(LABELS)

    def text(self, names: Mapping[str, str]) -> str:
        """The same with other names for the rows, and only those: `VLLM_NAMES`, for example."""
        width = max(len(name) for name in names.values()) + 2
        lost = [f"{count} {what}" for what in ("shed", "aborted", "unfinished") if (count := getattr(self, what))]
        head = [f"{self.finished} of {counted(self.requests, 'request')} finished in {self.duration:.4g} s"
                + (f" ({', '.join(lost)})" if lost else "") + f", {counted(self.preemptions, 'preemption')}",
                f"{self.request_rate:.4g} requests/s, {self.output_rate:.5g} output tokens/s, "
                f"{self.prompt_rate:.5g} prompt tokens/s", "",
                f"{'':<{width}}{'mean':>10}{'P50':>10}{'P90':>10}{'P99':>10}{'max':>10}   samples (beyond P99)"]
        rows = [f"{label:<{width}}{_numbers(getattr(self, name))}" for name, label in names.items()]
        return "\n".join([*head, *rows])


def summary(table: Table) -> Summary:
    """The numbers of a run; rates are NaN when no time passed."""
    reason, done = table["finish_reason"], table.finished
    served = ~np.isnan(table["ttft"])
    duration = span(table)
    prompt, output = int(table["prompt_tokens"][served].sum()), int(table["output_tokens"].sum())
    tokens = np.maximum(table["output_tokens"], 1)
    return Summary(
        requests=len(table), finished=int(done.sum()), shed=int((reason == "shed").sum()),
        aborted=int((reason == "abort").sum()), unfinished=int((reason == "").sum()), duration=duration,
        request_rate=_over(done.sum(), duration), output_rate=_over(output, duration),
        prompt_rate=_over(prompt, duration), prompt_tokens=prompt, output_tokens=output,
        preemptions=int(table["preemptions"].sum()),
        ttft=distribution(table["ttft"]), tpot=distribution(table["tpot"][done]),
        itl=distribution(table.gap_seconds, table.gap_counts), e2e=distribution(table["e2e"][done]),
        queue=distribution(table["queue_time"]), prefill=distribution(table["prefill_time"]),
        decode=distribution(table["decode_time"][done]), normalised=distribution((table["e2e"] / tokens)[done]))


def span(table: Table) -> float:
    """Seconds from the first arrival to the last token; 0 when no token came."""
    last = (table["arrival"] + table["e2e"])[~np.isnan(table["e2e"])]
    return float(last.max() - table["arrival"].min()) if len(last) else 0.0


def compare(runs: Mapping[str, Table | Summary]) -> DataFrame:
    """Runs side by side as a pandas DataFrame: a row a run; counts, rates, mean, P50 and P99 of the times."""
    from pandas import DataFrame

    rows = {name: run if isinstance(run, Summary) else summary(run) for name, run in runs.items()}
    return DataFrame([_row(made) for made in rows.values()], index=list(rows))


def _row(made: Summary) -> dict[str, float]:
    row: dict[str, float] = {name: getattr(made, name) for name in (
        "requests", "finished", "shed", "request_rate", "output_rate", "preemptions")}
    for name in ("ttft", "tpot", "itl", "e2e", "normalised"):
        found = getattr(made, name)
        row |= {f"{name}_mean": found.mean, f"{name}_p50": found.p50, f"{name}_p99": found.p99}
    return row


def _over(amount: float, seconds: float) -> float:
    return float(amount) / seconds if seconds > 0 else float("nan")


def _numbers(found: Distribution) -> str:
    if not found.samples:
        return f"{'-':>10}" * 5 + "   0"
    shown = (found.mean, found.p50, found.p90, found.p99, found.maximum)
    few = ": few" if found.shaky else ""
    return "".join(f"{_time(seconds):>10}" for seconds in shown) + f"   {found.samples} ({found.beyond_p99}{few})"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.4g} s"
