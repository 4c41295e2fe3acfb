"""What an operator sees: gauges, counters and histograms, read off the event log and nothing else.

Whoever serves writes events; whoever watches reads them. So watching cannot change what is watched, and a log kept on
disk answers the same questions a year later. Names are vLLM's, the text is Prometheus's exposition format, so that a
dashboard for vLLM shows this course's engine. A scrape reads the log from its start: short to write, never out of step.
Week 2; week 3 says what the numbers mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llmcourse.engine import Event, EventKind
from llmcourse.engine.tables import Tables, follow, used_blocks
from llmcourse.metrics.records import Record, records

LATENCY_BOUNDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOKEN_BOUNDS = (1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0)
HELP = {
    "num_requests_running": "Requests that are being computed.",
    "num_requests_waiting": "Requests that wait to be scheduled.",
    "kv_cache_usage_perc": "Share of the KV blocks in use, 0 to 1.",
    "num_preemptions": "Preemptions so far.",
    "prompt_tokens": "Prompt tokens of requests that produced their first token.",
    "generation_tokens": "Tokens delivered.",
    "request_success": "Requests that finished, by reason.",
    "iteration_tokens_total": "Tokens computed in one step.",
    "time_to_first_token_seconds": "From arrival to the first token.",
    "inter_token_latency_seconds": "From one token to the next.",
    "e2e_request_latency_seconds": "From arrival to the last token, finished requests.",
    "request_queue_time_seconds": "From arrival to the first time it was scheduled.",
    "request_prefill_time_seconds": "From scheduled to the first token.",
    "request_decode_time_seconds": "From the first token to the last, finished requests.",
}


@dataclass(frozen=True)
class Histogram:
    """How many observations lie at or below each bound: as in Prometheus, a value counts in all larger bounds too."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    count: int
    sum: float

    @staticmethod
    def of(values: Sequence[float], bounds: tuple[float, ...]) -> "Histogram":
        """Count ``values`` into ``bounds``, which rise."""
        counts = tuple(sum(value <= bound for value in values) for bound in bounds)
        return Histogram(bounds, counts, len(values), sum(values))


class Monitor:
    """Reads one engine's event log; every property is as of the log's last event."""

    def __init__(self, events: Sequence[Event], model: str = "course-tiny") -> None:
        self.events, self.model = events, model

    def gauges(self) -> dict[str, float]:
        """What is going on now, by vLLM's names."""
        waiting, running, tables = self._queues()
        pool = next((e.data["num_blocks"] for e in reversed(self.events) if e.kind is EventKind.STEP), math.inf)
        return {"num_requests_running": len(running), "num_requests_waiting": len(waiting),
                "kv_cache_usage_perc": used_blocks(tables) / pool}

    def counters(self) -> dict[str, int]:
        """What has happened so far; a counter only ever grows."""
        seen = records(self.events)
        return {"num_preemptions": sum(r.preemptions for r in seen),
                "prompt_tokens": sum(r.prompt_tokens for r in seen if r.output_tokens),
                "generation_tokens": sum(r.output_tokens for r in seen)}

    def finished(self) -> dict[str, int]:
        """Finished requests by reason: "stop" for an end token, "length" for a spent budget."""
        reasons = [e.data["reason"] for e in self.events if e.kind is EventKind.FINISHED]
        return {reason: reasons.count(reason) for reason in sorted({"stop", "length", *reasons})}

    def histograms(self) -> dict[str, Histogram]:
        """Distributions by vLLM's names, in seconds or tokens."""
        steps = [float(sum(n for _, _, n in e.data["batch"])) for e in self.events if e.kind is EventKind.STEP]
        times = _latencies(records(self.events))
        latencies = {name: Histogram.of(values, LATENCY_BOUNDS) for name, values in times.items()}
        return {"iteration_tokens_total": Histogram.of(steps, TOKEN_BOUNDS)} | latencies

    def render_prometheus(self) -> str:
        """The page a Prometheus server would fetch, one line per value."""
        label = f'model_name="{self.model}"'
        lines: list[str] = []
        for name, value in self.gauges().items():
            lines += [*_head(name, "gauge"), f"vllm:{name}{{{label}}} {value:g}"]
        for name, value in self.counters().items():
            lines += [*_head(name, "counter"), f"vllm:{name}_total{{{label}}} {value}"]
        lines += _head("request_success", "counter")
        lines += [f'vllm:request_success_total{{finished_reason="{reason}",{label}}} {count}'
                  for reason, count in self.finished().items()]
        for name, histogram in self.histograms().items():
            lines += [*_head(name, "histogram"), *_buckets(name, label, histogram)]
        return "\n".join(lines) + "\n"

    def _queues(self) -> tuple[set[str], set[str], Tables]:
        """Who waits, who runs, and which blocks each owns, replayed from the log."""
        waiting: set[str] = set()
        running: set[str] = set()
        tables: Tables = {}
        for event in self.events:
            name = event.request or ""
            follow(tables, event)
            if event.kind is EventKind.SCHEDULED:
                waiting.discard(name)
                running.add(name)
            elif event.kind in (EventKind.QUEUED, EventKind.PREEMPTED, EventKind.FINISHED, EventKind.ABORTED):
                for place in (waiting, running):
                    place.discard(name)
                if event.kind in (EventKind.QUEUED, EventKind.PREEMPTED):
                    waiting.add(name)
        return waiting, running, tables


def _latencies(seen: Sequence[Record]) -> dict[str, list[float]]:
    done = [r for r in seen if r.finish_reason in ("stop", "length")]
    return {"time_to_first_token_seconds": [r.ttft for r in seen if r.ttft is not None],
            "inter_token_latency_seconds": [gap for r in seen for gap in r.itl],
            "e2e_request_latency_seconds": [r.e2e for r in done if r.e2e is not None],
            "request_queue_time_seconds": [r.queue_time for r in seen if r.queue_time is not None],
            "request_prefill_time_seconds": [r.prefill_time for r in seen if r.prefill_time is not None],
            "request_decode_time_seconds": [r.decode_time for r in done if r.decode_time is not None]}


def _head(name: str, kind: str) -> list[str]:
    shown = f"{name}_total" if kind == "counter" else name
    return [f"# HELP vllm:{shown} {HELP[name]}", f"# TYPE vllm:{shown} {kind}"]


def _buckets(name: str, label: str, histogram: Histogram) -> list[str]:
    steps = zip((*map(str, histogram.bounds), "+Inf"), (*histogram.counts, histogram.count), strict=True)
    return [*(f'vllm:{name}_bucket{{le="{bound}",{label}}} {count}' for bound, count in steps),
            f"vllm:{name}_sum{{{label}}} {histogram.sum:g}", f"vllm:{name}_count{{{label}}} {histogram.count}"]
