"""What a token costs, in dollars and in joules.

A rented machine costs the same idle as full, so the price of a token is the price of an hour over the tokens that came
out of it: half the load doubles it. Power is not so: an idle board draws a share of its limit, a busy one up to all of
it. Both answers stand on assumptions that the bill prints, and the energy is an upper bound, since decoding leaves most
arithmetic units waiting for memory. Prices and watts are those of `data/hardware.json`. Week 3.
"""

from dataclasses import asdict, dataclass

from llmcourse.errors import UserError
from llmcourse.metrics.hardware import Hardware
from llmcourse.metrics.percentile import none_for_nan
from llmcourse.metrics.summary import Summary, summary
from llmcourse.metrics.table import Table

IDLE_SHARE = 0.15  # of the board's limit: data-centre GPUs draw some 50-100 W of 400-700 W when they do nothing
HOUR = 3600.0


@dataclass(frozen=True)
class Bill:
    """One run's cost. ``dollars`` and ``joules`` are of the whole run; None: price or watts are not known."""

    output_tokens: int
    prompt_tokens: int
    gpu_hours: float
    dollars: float | None
    dollars_per_million_output: float | None
    dollars_per_million_tokens: float | None
    joules: float | None
    joules_per_output_token: float | None
    assumptions: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Plain numbers, ready for JSON."""
        return {name: none_for_nan(value) for name, value in asdict(self).items()}

    def __str__(self) -> str:
        """Readable lines, assumptions last."""
        lines = []
        if self.dollars_per_million_output is not None:
            lines.append(f"${self.dollars_per_million_output:.4g} per million output tokens "
                         f"(${self.dollars_per_million_tokens:.4g} per million, prompts counted too)")
        if self.joules_per_output_token is not None:
            lines.append(f"{self.joules_per_output_token:.4g} J per output token, at most")
        return "\n".join([*lines, *(f"  assumed: {text}" for text in self.assumptions)])


def cost_per_million(run: Table | Summary, hardware: Hardware, gpus: int = 1) -> float:
    """Dollars per million output tokens: ``gpus`` boards rented from the first arrival to the last token."""
    return _priced(_summary(run), hardware, gpus) / _tokens(run) * 1e6


def energy_per_token(run: Table | Summary, hardware: Hardware, busy: float = 1.0, gpus: int = 1,
                     idle: float = IDLE_SHARE) -> float:
    """Joules per output token of boards that draw their limit while busy and ``idle`` of it otherwise.

    ``busy`` is the share of time with a step running (`Utilisation.busy`, or a ledger's busy seconds over the span).
    """
    return _joules(_summary(run), hardware, busy, gpus, idle) / _tokens(run)


def bill(run: Table | Summary, hardware: Hardware, busy: float = 1.0, gpus: int = 1) -> Bill:
    """Everything about a run's cost that the hardware table can tell."""
    made = _summary(run)
    tokens, both = _tokens(made), made.output_tokens + made.prompt_tokens
    dollars = None if hardware.price_per_hour is None else _priced(made, hardware, gpus)
    joules = None if hardware.watts is None else _joules(made, hardware, busy, gpus, IDLE_SHARE)
    return Bill(made.output_tokens, made.prompt_tokens, gpus * made.duration / HOUR, dollars,
                None if dollars is None else dollars / tokens * 1e6, None if dollars is None else dollars / both * 1e6,
                joules, None if joules is None else joules / tokens, _assumptions(hardware, busy, gpus))


def _summary(run: Table | Summary) -> Summary:
    return run if isinstance(run, Summary) else summary(run)


def _tokens(run: Table | Summary) -> int:
    tokens = run.output_tokens if isinstance(run, Summary) else int(run["output_tokens"].sum())
    if not tokens:
        raise UserError("the run delivered no token; there is nothing to share its cost among")
    return tokens


def _priced(made: Summary, hardware: Hardware, gpus: int) -> float:
    if hardware.price_per_hour is None:
        raise UserError(f"{hardware.name} has no price; say one: replace(hardware, price_per_hour=1.5)")
    return hardware.price_per_hour * gpus * made.duration / HOUR


def _joules(made: Summary, hardware: Hardware, busy: float, gpus: int, idle: float) -> float:
    if hardware.watts is None:
        raise UserError(f"{hardware.name} has no power figure; say one: replace(hardware, watts=65)")
    if not (0 <= busy <= 1 and 0 <= idle <= 1):
        raise UserError(f"busy={busy} and idle={idle} are shares, from 0 to 1")
    return hardware.watts * gpus * made.duration * (idle + (1 - idle) * busy)


def _assumptions(hardware: Hardware, busy: float, gpus: int) -> tuple[str, ...]:
    texts, each = [], f"{gpus} x " if gpus > 1 else ""
    if hardware.price_per_hour is not None:
        texts.append(f"{each}{hardware.name} at ${hardware.price_per_hour:g} an hour, paid from first arrival to "
                     "last token, busy or not; no host, network or people")
    if hardware.watts is not None:
        texts.append(f"{each}{hardware.watts:g} W while a step runs ({busy:.0%} of the time), {IDLE_SHARE:.0%} of that "
                     "otherwise; no host, no cooling")
    return tuple(texts)
