"""Trace files in, arrivals out: Azure's, Mooncake's and the arena's formats, and a CSV of our own.

The format is recognised by its columns. Times come out in seconds from the first request. Mooncake's clock ticks
every 3 seconds and puts some ten requests on one tick; replayed like that they would be a burst that never was, so each
is moved to a random moment before the next tick (with a seed; the file's order stays). Week 4.

Azure: Patel et al. (Splitwise, ISCA 2024). Mooncake: Qin et al. (FAST 2025). Arena: Sheng et al. (VTC, OSDI 2024).
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from llmcourse.errors import UserError
from llmcourse.workload.arrival import BLOCK_TOKENS, Arrival
from llmcourse.workload.cells import Row
from llmcourse.workload.generate import generator
from llmcourse.workload.slo import SLO


@dataclass(frozen=True)
class Format:
    """A kind of trace file: its columns, and how a row becomes an arrival. Its first column holds the time."""

    name: str
    columns: tuple[str, ...]
    arrival: Callable[[Row], Arrival]


def _azure(row: Row) -> Arrival:
    return Arrival(row.moment("TIMESTAMP"), row.tokens("ContextTokens"), row.tokens("GeneratedTokens"))


def _mooncake(row: Row) -> Arrival:
    return Arrival(row.seconds("timestamp", unit=1e-3), row.tokens("input_length"), row.tokens("output_length"),
                   prefix=row.ids("hash_ids"))


def _arena(row: Row) -> Arrival:
    return Arrival(row.seconds("arrival_s"), row.tokens("prompt_len"), row.tokens("output_len"),
                   tenant=str(row.cells["client"]))


def _own(row: Row) -> Arrival:
    ttft, tpot = row.bound("ttft_slo"), row.bound("tpot_slo")
    priority = row.whole("priority")
    if priority is None:
        row.refuse("priority", "a whole number is needed")
    return Arrival(row.seconds("time"), row.tokens("prompt_tokens"), row.tokens("output_tokens"), row.cells["tenant"],
                   priority, SLO(ttft, tpot) if ttft or tpot else None,
                   row.amount("predicted") if row.cells["predicted"] else None,
                   row.cells["session"] or None, row.ids("prefix"))


AZURE = Format("Azure CSV", ("TIMESTAMP", "ContextTokens", "GeneratedTokens"), _azure)
MOONCAKE = Format("Mooncake JSONL", ("timestamp", "input_length", "output_length", "hash_ids"), _mooncake)
ARENA = Format("arena CSV", ("arrival_s", "client", "prompt_len", "output_len"), _arena)
OWN = Format("our own CSV", ("time", "prompt_tokens", "output_tokens", "tenant", "priority", "ttft_slo", "tpot_slo",
                             "predicted", "session", "prefix"), _own)
FORMATS = (AZURE, MOONCAKE, ARENA, OWN)


def read_trace(path: str | Path, jitter: int | None = 0, max_prompt: int | None = None) -> list[Arrival]:
    """The arrivals of a trace file, sorted by time, counted from its first time stamp (our own CSV keeps its times).

    `jitter` is the seed with which requests on one tick of a coarse clock are spread over that tick; None leaves them.
    `max_prompt` cuts longer prompts, and their list of prefix blocks with them. Raises UserError for a file that is not
    sound, naming row and column.
    """
    file = Path(path)
    found, rows = _open(file)
    arrivals = list(_in_order(found, rows))
    if not arrivals:
        raise UserError(f"{file.name} has a header and no rows; a trace needs at least one request")
    if found is not OWN:
        arrivals = _from_zero(arrivals)
    if found is MOONCAKE and jitter is not None:
        arrivals = _off_the_ticks(arrivals, generator(jitter))
    return arrivals if max_prompt is None else cut_prompts(arrivals, max_prompt)


def cut_prompts(workload: Iterable[Arrival], tokens: int) -> list[Arrival]:
    """The same arrivals with prompts of at most `tokens`, and no more prefix blocks than such a prompt has."""
    if tokens < 1:
        raise UserError(f"prompts cut to {tokens} tokens; leave at least 1")
    blocks = -(-tokens // BLOCK_TOKENS)
    return [replace(arrival, prompt_tokens=tokens, prefix=arrival.prefix[:blocks])
            if arrival.prompt_tokens > tokens else arrival for arrival in workload]


def write_trace(path: str | Path, arrivals: Iterable[Arrival]) -> int:
    """Write a workload as our own CSV, which `read_trace` gives back as it was; returns the number of rows."""
    count = 0
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(OWN.columns)
        for count, arrival in enumerate(arrivals, start=1):  # noqa: B007 (the last count is the answer)
            slo = arrival.slo or SLO()
            writer.writerow([repr(arrival.time), arrival.prompt_tokens, arrival.output_tokens, arrival.tenant,
                             arrival.priority, slo.ttft, slo.tpot, arrival.predicted, arrival.session,
                             " ".join(map(str, arrival.prefix))])
    return count


# ---- opening ----------------------------------------------------------------------------------------------------


def _open(file: Path) -> tuple[Format, Iterator[Row]]:
    """What kind of file it is, and its rows."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); `llmcourse data fetch` gets traces") from None
    except UnicodeDecodeError:
        raise UserError(f"{file.name} is not text in UTF-8; a trace is CSV or JSONL (unpack it first?)") from None
    if not text.strip():
        raise UserError(f"{file.name} is empty; a trace needs at least one request")
    return _open_jsonl(file, text) if text.lstrip().startswith("{") else _open_csv(file, text)


def _open_csv(file: Path, text: str) -> tuple[Format, Iterator[Row]]:
    reader = csv.reader(io.StringIO(text, newline=""))
    columns = [name.strip() for name in next(reader)]
    return _recognised(file, 1, columns), _csv_rows(file, columns, reader)


def _csv_rows(file: Path, columns: list[str], reader: Iterator[list[str]]) -> Iterator[Row]:
    try:
        for number, cells in enumerate(reader, start=2):
            if cells and len(cells) != len(columns):
                raise UserError(f"{file.name}, row {number}: {len(cells)} cells where the header names {len(columns)} "
                                f"columns ({', '.join(columns)})")
            if cells:
                yield Row(file, number, dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        raise UserError(f"{file.name} is not a sound CSV file: {error}") from None


def _open_jsonl(file: Path, text: str) -> tuple[Format, Iterator[Row]]:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return MOONCAKE, (_json_row(file, *line) for line in lines)


def _json_row(file: Path, number: int, line: str) -> Row:
    try:
        cells = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file.name}, row {number}: broken JSON ({error}); each line must be one object") from None
    if not isinstance(cells, dict):
        raise UserError(f"{file.name}, row {number}: {line.strip()[:40]}; each line must be one JSON object")
    _recognised(file, number, list(cells), (MOONCAKE,))
    return Row(file, number, cells)


def _recognised(file: Path, number: int, columns: list[str], formats: Iterable[Format] = FORMATS) -> Format:
    """The format all of whose columns are there; else an error that says what the nearest one lacks."""
    missing = {known: [name for name in known.columns if name not in columns] for known in formats}
    best = min(missing, key=lambda known: len(missing[known]) / len(known.columns))
    if not missing[best]:
        return best
    if len(missing[best]) == len(best.columns):
        known = "; ".join(f"{known.name}: {', '.join(known.columns)}" for known in formats)
        raise UserError(f"{file.name}, row {number}: no trace has columns {', '.join(columns)[:80]}; known are {known}")
    raise UserError(f"{file.name}, row {number}: column {', '.join(missing[best])} is missing; {best.name} has "
                    f"{', '.join(best.columns)}, here are {', '.join(columns)[:80]}")


# ---- times ------------------------------------------------------------------------------------------------------


def _in_order(found: Format, rows: Iterable[Row]) -> Iterator[Arrival]:
    """Arrivals row by row, as long as no time lies before the one above it."""
    before = -np.inf
    for row in rows:
        arrival = found.arrival(row)
        if arrival.time < before:
            row.refuse(found.columns[0], "earlier than the row above; sort the file by time")
        before = arrival.time
        yield arrival


def _from_zero(arrivals: list[Arrival]) -> list[Arrival]:
    start = arrivals[0].time
    return [replace(arrival, time=round(arrival.time - start, 6)) for arrival in arrivals]


def _off_the_ticks(arrivals: list[Arrival], rng: np.random.Generator) -> list[Arrival]:
    """Spread the requests of each tick evenly at random up to the next, if times repeat at all."""
    ticks, where = np.unique([arrival.time for arrival in arrivals], return_inverse=True)
    if len(ticks) in (1, len(arrivals)):
        return arrivals
    steps = np.diff(ticks)
    usual = float(np.median(steps))
    room = np.minimum(np.append(steps, usual), usual)  # a pause in the trace is no longer tick
    times = np.sort(ticks[where] + room[where] * rng.random(len(arrivals)))
    return [replace(arrival, time=float(time)) for arrival, time in zip(arrivals, times, strict=True)]
