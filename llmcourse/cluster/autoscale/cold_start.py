"""How long a new instance takes to be ready, by where its weights lie.

A machine is booted, a process started, the GPU woken (``boot``, whatever the model), and then the weights are read over
the slowest part of their way: a network, an SSD, or the link from host memory. A Llama 2 7B of 13.5 GB takes 11 s over
10 Gbit/s, 3 s from an SSD, under 1 s from DRAM; ServerlessLLM (Fu et al., 2024) measured 0.8 s for OPT 6.7B against
8 to 12 s for a plain loader, and 7.5 s against 200 s for OPT 30B. A warm pool pays for machines that are booted and
wait: ``warm`` of them skip the boot, and are replaced when they are taken. Week 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmcourse.errors import UserError

# Bytes/s: 10 Gbit/s Ethernet; one NVMe drive as it reads at best; host memory over PCIe 4.0 x16, as copies reach it.
TIERS: Mapping[str, float] = {"remote": 1.25e9, "ssd": 5e9, "dram": 20e9}
BOOT = 15.0                              # seconds; Chiron (Patke et al., 2025) reckons with 15 s to 1 min in all


@dataclass(frozen=True)
class ColdStart:
    """``weights`` in bytes, ``boot`` in seconds, ``tiers`` in bytes/s; ``tier`` is where weights lie if nobody says."""

    weights: float = 0.0
    boot: float = 0.0
    tier: str = "remote"
    warm: int = 0
    tiers: Mapping[str, float] = field(default_factory=lambda: TIERS)

    def __post_init__(self) -> None:
        """Refuse a tier that is none."""
        self.bandwidth(self.tier)
        if self.weights < 0 or self.boot < 0 or self.warm < 0:
            raise UserError(f"weights of {self.weights} bytes, {self.boot} s to boot, {self.warm} machines kept warm: "
                            "none of them can be below 0")

    @classmethod
    def of(cls, model: str = "Llama 2 7B", tier: str = "remote", boot: float = BOOT, warm: int = 0,
           bytes_per_value: float = 2) -> ColdStart:
        """Of a shape of `data/models.json`."""
        from llmcourse.model.shapes import shape
        return cls(shape(model).weight_bytes(bytes_per_value), boot, tier, warm)

    def bandwidth(self, tier: str) -> float:
        """Bytes/s from there; UserError for a tier that is not known."""
        if tier not in self.tiers:
            raise UserError(f"no tier {tier!r} to load weights from; there are {', '.join(self.tiers)}")
        return self.tiers[tier]

    def load(self, tier: str = "") -> float:
        """Seconds to read the weights."""
        return self.weights / self.bandwidth(tier or self.tier)

    def seconds(self, tier: str = "") -> float:
        """From nothing until it takes requests."""
        return self.boot + self.load(tier)


class WarmPool:
    """Machines that are booted and wait; ``booted``: from when on each may be taken (s)."""

    def __init__(self, cold: ColdStart, booted: list[float] | None = None) -> None:
        self.cold, self.booted = cold, [0.0] * cold.warm if booted is None else booted

    def ready(self, now: float, tier: str = "") -> float:
        """When an instance that is started now (s) takes requests; takes a warm machine if one is there."""
        if self.booted and min(self.booted) <= now:
            self.booted[self.booted.index(min(self.booted))] = now + self.cold.boot
            return now + self.cold.load(tier)
        return now + self.cold.seconds(tier)
