"""What memory `llmcourse sim` gives an instance, and what it says of it afterwards. Week 6."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial

from llmcourse.cluster.migration import Migration
from llmcourse.engine import Engine
from llmcourse.engine.counters import Counters
from llmcourse.kv import BlockPool, ContiguousPool, Memory, PrefixPool, make_pool
from llmcourse.metrics.words import counted

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
    """What the mechanisms did on all instances: their counters, and the share of prompt tokens that a cache found.

    ``moved`` counts requests that went to another instance, ``stayed`` why others that should have did not.
    """

    counters: Counters
    hit_rate: float | None
    moved: int = 0
    stayed: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, engines: Sequence[Engine], migrations: Sequence[Migration] = ()) -> Used:
        """Added up."""
        names = [each.name for each in fields(Counters)]
        counters = Counters(**{name: sum(getattr(engine.counters, name) for engine in engines) for name in names})
        pools = [engine.pool for engine in engines if isinstance(engine.pool, PrefixPool)]
        asked = sum(pool.lookup_tokens for pool in pools)
        stayed = Counter(each.reason for each in migrations if each.outcome == "aborted")
        return cls(counters, sum(pool.hit_tokens for pool in pools) / asked if asked else None,
                   sum(each.outcome == "moved" for each in migrations), dict(stayed.most_common()))

    def lines(self) -> list[str]:
        """A line for each mechanism that was used."""
        made, said = self.counters, []
        if self.hit_rate is not None:
            said.append(f"prefix cache: {self.hit_rate:.1%} of the prompt tokens that were looked up were found")
        if made.recomputed_tokens:
            said.append(f"computed again after preemptions: {counted(made.recomputed_tokens, 'token')}")
        if made.swapped_out_blocks:
            said.append(f"swapped out: {counted(made.swapped_out_blocks, 'block')}, in: {made.swapped_in_blocks}")
        if made.parked:
            said.append(f"parked: {counted(made.parked, 'time')} a request gave its seat away and kept its KV")
        if made.copied_blocks:
            said.append(f"moved or copied within an instance: {counted(made.copied_blocks, 'block')}")
        if self.moved or self.stayed:
            said.append(f"moved to other instances: {counted(self.moved, 'request')}; sent for it, also in vain: "
                        f"{counted(made.sent_blocks, 'block')}")
        said += [f"stayed where it was: {counted(count, 'request')}, because {reason}"
                 for reason, count in self.stayed.items()]
        return said

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON."""
        return {"counters": asdict(self.counters), "prefix_hit_rate": self.hit_rate, "moved": self.moved,
                "aborted_migrations": dict(self.stayed)}
