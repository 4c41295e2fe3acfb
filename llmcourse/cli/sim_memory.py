"""What memory `llmcourse sim` gives an instance, and what it says of it afterwards. Week 6."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial

from llmcourse.engine import Engine
from llmcourse.engine.counters import Counters
from llmcourse.errors import UserError
from llmcourse.kv import BlockPool, ContiguousPool, Memory, PrefixPool, make_pool

MEMORIES: dict[str, Callable[..., Memory]] = {
    "paged": BlockPool,
    "hash": partial(make_pool, prefix_cache="hash"),
    "radix": partial(make_pool, prefix_cache="radix"),
    "max": partial(ContiguousPool, reservation="max"),
    "exact": partial(ContiguousPool, reservation="exact"),
    "growing": partial(ContiguousPool, reservation="growing"),
}
"""By the names of ``--memory``: blocks (with a prefix cache), or contiguous with one of three reservations."""


@dataclass(frozen=True)
class Used:
    """What the mechanisms did on all instances: their counters, and the share of prompt tokens that a cache found."""

    counters: Counters
    hit_rate: float | None

    @classmethod
    def of(cls, engines: Sequence[Engine]) -> Used:
        """Added up."""
        names = [field.name for field in fields(Counters)]
        counters = Counters(**{name: sum(getattr(engine.counters, name) for engine in engines) for name in names})
        pools = [engine.pool for engine in engines if isinstance(engine.pool, PrefixPool)]
        asked = sum(pool.lookup_tokens for pool in pools)
        return cls(counters, sum(pool.hit_tokens for pool in pools) / asked if asked else None)

    def lines(self) -> list[str]:
        """A line for each mechanism that was used."""
        made, said = self.counters, []
        if self.hit_rate is not None:
            said.append(f"prefix cache: {self.hit_rate:.1%} of the prompt tokens that were looked up were found")
        if made.recomputed_tokens:
            said.append(f"{made.recomputed_tokens} tokens were computed again after preemptions")
        if made.swapped_out_blocks:
            said.append(f"{made.swapped_out_blocks} blocks were swapped out and {made.swapped_in_blocks} in")
        if made.copied_blocks:
            said.append(f"{made.copied_blocks} blocks were moved or copied")
        if made.sent_blocks:
            said.append(f"{made.sent_blocks} blocks were sent to other instances")
        return said

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON."""
        return {"counters": asdict(self.counters), "prefix_hit_rate": self.hit_rate}


def known(name: str) -> Callable[..., Memory]:
    """The memory of this name; UserError for another."""
    if name not in MEMORIES:
        raise UserError(f"no memory {name!r}; there are {', '.join(MEMORIES)}")
    return MEMORIES[name]
