"""Streams on Ray while requests are migrated and an actor dies: tokens beside one undisturbed engine's, and the pauses.

What is measured: course-tiny on two actors; requests come at ``--rate`` a second, half of them greedy, half sampled;
every second the instance with most requests gives one to the other; after a while, and not before one has moved, the
process of one actor is killed and another started in its place. Every stream is watched token by token as its client
would see it. All must be what one engine says that serves the same requests undisturbed, or the exit code is 1. Pauses
are the longest gaps between two tokens of a stream, of requests that moved, that lost their instance, and of all
others. The last line is one line of JSON.
"""

import json
import os
import platform
import signal
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from llmcourse.cli.parser import Parser
from llmcourse.cluster import RayDriver
from llmcourse.engine import Engine, EventKind, Request, SamplingParams
from llmcourse.paths import ROOT

PROMPTS = ROOT / "data" / "prompts" / "prompts.jsonl"
OPTIONS = {"num_blocks": 512}
ANSWER = 100                             # tokens of every answer


@dataclass(frozen=True)
class Job:
    """A prompt, and how it is to be answered."""

    prompt: tuple[int, ...]
    sampling: SamplingParams


@dataclass
class Stream:
    """What one client has seen: tokens, and when each came (s)."""

    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    moved: bool = False
    orphaned: bool = False
    ended: bool = False

    @property
    def pause(self) -> float:
        """The longest gap between two of its tokens (s)."""
        return max((b - a for a, b in zip(self.times, self.times[1:], strict=False)), default=0.0)


@dataclass
class Run:
    """What came of it; ``repeated`` and ``lost`` are tokens that clients saw twice or missed."""

    streams: list[Stream]
    seconds: float
    repeated: int = 0
    lost: int = 0
    moved: int = 0
    aborted: int = 0
    deaths: int = 0
    kv_bytes: int = 0
    downtimes: list[float] = field(default_factory=list)

    @property
    def tokens(self) -> list[list[int]]:
        """What each client has been sent."""
        return [stream.tokens for stream in self.streams]


def main(argv: list[str]) -> int:
    """Serve undisturbed, serve disturbed, compare; print a table and the JSON line."""
    parser = Parser(prog="llmcourse bench ray_streams", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=200, help="how many streams")
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two migrations")
    parser.add_argument("--kill", type=float, default=8.0, help="seconds until an actor is killed, once one has moved")
    parser.add_argument("--address", help="a Ray cluster's host:port (default: this machine alone)")
    args = parser.parse_args(argv)
    jobs, expected = undisturbed(args.requests)
    run = serve(jobs, args.rate, args.every, args.kill, args.address)
    equal = sum(a == b for a, b in zip(run.tokens, expected, strict=True))
    report = _report(run, equal) | {"requests": args.requests, "rate": args.rate}
    for name, value in report.items():
        print(f"{name:<28}{value}")
    print(json.dumps({"benchmark": "ray_streams", "date": str(date.today()), "cores": os.cpu_count(),
                      "machine": platform.processor() or platform.machine(), **report}))
    return int(equal != args.requests or run.repeated + run.lost > 0)


def undisturbed(count: int, seed: int = 0) -> tuple[list[Job], list[list[int]]]:
    """Jobs from the course's prompts, and what one engine answers to them."""
    texts = [json.loads(line)["prompt"] for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    engine = Engine.from_model(**OPTIONS)
    jobs = [Job(tuple(engine.tokens_of(texts[(seed + 7 * i) % len(texts)])),
                SamplingParams(max_tokens=ANSWER, temperature=0.8 * (i % 2), seed=seed + i,
                               ignore_eos=True)) for i in range(count)]
    done = engine.generate([job.prompt for job in jobs], [job.sampling for job in jobs])
    return jobs, [list(completion.tokens) for completion in done]


def serve(jobs: Sequence[Job], rate: float, every: float, kill_after: float, address: str | None = None) -> Run:
    """Serve them on two actors, disturbed."""
    with RayDriver.from_model(instances=2, engine=OPTIONS, address=address) as driver:
        return _Serving(driver, jobs, rate, every, kill_after).run()


class _Serving:
    """One run: requests come, one is moved every so often, one instance dies."""

    def __init__(self, driver: RayDriver, jobs: Sequence[Job], rate: float, every: float, kill_after: float) -> None:
        self.driver, self.jobs, self.rate, self.every = driver, jobs, rate, every
        self.start = driver.now
        self.next_move, self.dies_at = self.start + every, self.start + kill_after
        self.streams: dict[str, Stream] = {}
        self.result = Run([], 0.0)

    def run(self) -> Run:
        """Until every client has everything."""
        driver = self.driver
        while len(self.streams) < len(self.jobs) or not driver.idle:
            while len(self.streams) < len(self.jobs) and driver.now >= self._due(len(self.streams)):
                job = self.jobs[len(self.streams)]
                self.streams[driver.add(Request(job.prompt, job.sampling)).id] = Stream()
            if driver.now >= self.next_move and self._move():
                self.next_move += self.every
            if driver.now >= self.dies_at and any(move.outcome == "moved" for move in driver.migrations):
                self._kill()
            driver.advance(self._due(len(self.streams)) if len(self.streams) < len(self.jobs) else float("inf"))
            self._watch()
        driver.check_invariants()
        return self._finished()

    def _due(self, number: int) -> float:
        return self.start + number / self.rate

    def _watch(self) -> None:
        news, self.driver.news = self.driver.news, []
        now = time.perf_counter()
        for delivery in news:
            stream = self.streams[delivery.request_id]
            stream.ended |= delivery.reason is not None
            have = len(stream.tokens)
            self.result.repeated += max(0, have - delivery.position) if delivery.tokens else 0
            self.result.lost += max(0, delivery.position - have)
            stream.tokens += delivery.tokens
            stream.times += [now] * len(delivery.tokens)

    def _living(self, number: int) -> list[str]:
        return [name for name in self.streams if self.driver.owner(name) == number]

    def _move(self) -> bool:
        """The fullest gives one that has begun to the emptiest; False when nobody can just now."""
        alive = sorted((remote.number for remote in self.driver.alive if not remote.busy),
                       key=lambda number: -len(self._living(number)))
        begun = [name for name in self._living(alive[0]) if self.streams[name].tokens] if len(alive) > 1 else []
        if not begun:
            return False
        self.driver.migrate(begun[len(begun) // 2], alive[-1])
        return True

    def _kill(self) -> None:
        """The process of the fullest instance is killed, and nobody is told; another one is started."""
        self.dies_at = float("inf")
        victim = max((remote.number for remote in self.driver.alive), key=lambda number: len(self._living(number)))
        for name in self._living(victim):
            self.streams[name].orphaned = True
        os.kill(self.driver.remotes[victim].process, signal.SIGKILL)
        self.driver.start()

    def _finished(self) -> Run:
        run, migrations = self.result, self.driver.migrations
        run.seconds, run.streams = self.driver.now - self.start, list(self.streams.values())
        for migration in migrations:
            if migration.outcome == "moved":
                self.streams[migration.request_id].moved = True
                run.downtimes.append(migration.downtime or 0.0)
        run.moved, run.aborted = len(run.downtimes), len(migrations) - len(run.downtimes)
        run.kv_bytes = sum(migration.bytes for migration in migrations)
        run.deaths = sum(event.kind is EventKind.FAULT for event in self.driver.events)
        return run


def _report(run: Run, equal: int) -> dict[str, float | int]:
    def pause(streams: list[Stream]) -> float:
        return round(1000 * statistics.median([stream.pause for stream in streams]), 1) if streams else 0.0

    moved = [stream for stream in run.streams if stream.moved and not stream.orphaned]
    orphaned = [stream for stream in run.streams if stream.orphaned]
    others = [stream for stream in run.streams if not (stream.moved or stream.orphaned)]
    tokens = sum(map(len, run.tokens))
    return {"equal": equal, "lost": run.lost, "repeated": run.repeated, "tokens": tokens,
            "seconds": round(run.seconds, 1), "tokens_per_s": round(tokens / run.seconds, 1), "moved": run.moved,
            "aborted": run.aborted, "deaths": run.deaths, "kv_kB": run.kv_bytes // 1000,
            "downtime_ms": round(1000 * statistics.median(run.downtimes or [0.0]), 1),
            "pause_moved_ms": pause(moved), "pause_orphaned_ms": pause(orphaned), "pause_others_ms": pause(others),
            "orphaned": len(orphaned)}
