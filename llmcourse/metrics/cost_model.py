"""How long does a step take? The one question a simulation asks of a machine, answered by arithmetic.

A step that computes ``tokens`` new tokens reads all weights once or multiplies with them ``tokens`` times, whichever
takes longer; on top come the attention of its prefills, the reading of what is kept in the cache, and a fixed overhead.

    T = overhead + max(2 P tokens / F, W / B) + 4 L d pairs / F + kv_bytes context / B

with P parameters, W bytes of weights, L layers, d channels of attention, F FLOP/s and B bytes/s that kernels reach.
Williams et al., 2009, for the roofline; Agrawal et al., 2024 (Vidur), for what a simulation needs of it. Week 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from llmcourse.errors import UserError
from llmcourse.kinds import check_kind
from llmcourse.metrics.hardware import HARDWARE, Hardware
from llmcourse.model.config import ModelConfig

if TYPE_CHECKING:
    import numpy as np

    Numbers: TypeAlias = float | np.ndarray


class CostModel(Protocol):
    """Anything that can say how long a step takes.

    An array gives, value for value, bit for bit what the same scalars would give: a simulation that jumps over a
    thousand steps at once must arrive where one that takes them singly arrives.
    """

    def seconds(self, tokens: int, requests: int, context: Numbers, pairs: Numbers) -> Numbers:
        """Seconds of one step, or of many steps that differ in ``context`` and ``pairs`` (arrays).

        ``tokens``: new tokens computed; ``requests``: how many share them; ``context``: tokens already kept, summed
        over the requests; ``pairs``: of each request with more than one new token, how many (new token, token it looks
        at) pairs there are, ``count * start + count * (count + 1) / 2``, summed.
        """
        ...


@dataclass(frozen=True)
class RooflineCost:
    """The roofline of a GPU, taken at the shares of its peaks that real kernels reach.

    ``overhead`` is the seconds a step costs whatever it holds: launching kernels, the scheduler, sampling. With the
    defaults a decode step of Llama-7B takes 10.3 ms at least on an A100.
    """

    hardware: Hardware
    config: ModelConfig
    flops_share: float = 0.55
    bandwidth_share: float = 0.8
    overhead: float = 0.002
    bytes_per_value: float = 2
    per_token: float = field(init=False)        # s, all weights times one token
    weights: float = field(init=False)          # s, reading all weights
    per_pair: float = field(init=False)         # s, one token looking at one other, all layers
    per_context: float = field(init=False)      # s, reading one kept token

    def __post_init__(self) -> None:
        """Turn the shape and the machine into seconds once; a simulation asks a million times."""
        machine = self.hardware.derated(self.flops_share, self.bandwidth_share)
        channels = self.config.num_heads * self.config.head_dim
        for name, value in {
                "per_token": 2 * self.config.num_parameters / machine.flops,
                "weights": self.config.weight_bytes(self.bytes_per_value) / machine.bandwidth,
                "per_pair": 4 * self.config.num_layers * channels / machine.flops,
                "per_context": self.config.kv_bytes_per_token(self.bytes_per_value) / machine.bandwidth}.items():
            object.__setattr__(self, name, value)

    def seconds(self, tokens: int, requests: int, context: Numbers, pairs: Numbers) -> Numbers:
        """Seconds of one step (see `CostModel.seconds`); how many requests share it changes nothing here."""
        linear = self.overhead + max(self.per_token * tokens, self.weights)
        return linear + self.per_pair * pairs + self.per_context * context


def blocks_that_fit(hardware: Hardware, config: ModelConfig, block_size: int = 16, utilisation: float = 0.9,
                    bytes_per_value: float = 2) -> int:
    """KV blocks of ``block_size`` tokens that fit beside the weights, in the share ``utilisation`` of the memory.

    Raises UserError with the arithmetic, and with what would fit, when there is not room for a single block.
    """
    check_kind("block_size", block_size, int)
    if block_size < 1:
        raise UserError(f"blocks of {block_size} tokens; give at least 1")
    blocks = _blocks(hardware, config, block_size, utilisation, bytes_per_value)
    if blocks < 1:
        raise UserError(_does_not_fit(hardware, config, block_size, utilisation, bytes_per_value))
    return blocks


def _blocks(hardware: Hardware, config: ModelConfig, block_size: int, utilisation: float,
            bytes_per_value: float) -> int:
    left = utilisation * hardware.memory - config.weight_bytes(bytes_per_value)
    return int(left // (block_size * config.kv_bytes_per_token(bytes_per_value)))


def _does_not_fit(hardware: Hardware, config: ModelConfig, block_size: int, utilisation: float,
                  bytes_per_value: float) -> str:
    model = getattr(config, "name", "") or "this model"
    weights, usable = config.weight_bytes(bytes_per_value) / 1e9, utilisation * hardware.memory / 1e9
    block = block_size * config.kv_bytes_per_token(bytes_per_value) / 1e9
    gap = (f"{weights - usable:.1f} GB too few" if weights > usable else
           f"{usable - weights:.3g} GB left, less than the {block:.2g} GB of one block of {block_size} tokens")
    return (f"{model} on {hardware.name}: weights {config.num_parameters / 1e9:.2f} B x {bytes_per_value:g} bytes = "
            f"{weights:.1f} GB, memory {hardware.memory / 1e9:.0f} GB x {utilisation:g} = {usable:.1f} GB: {gap}; "
            + _what_would_fit(hardware, config, block_size, utilisation, bytes_per_value))


def _what_would_fit(hardware: Hardware, config: ModelConfig, block_size: int, utilisation: float,
                    bytes_per_value: float) -> str:
    larger = [name for name, other in HARDWARE.items()
              if _blocks(other, config, block_size, utilisation, bytes_per_value) > 0]
    fewer = [f"{size:g}" for size in (1, 0.5)
             if size < bytes_per_value and _blocks(hardware, config, block_size, utilisation, size) > 0]
    ways = [f"it fits on {', '.join(larger)}"] if larger else ["no single GPU of the table holds it"]
    if fewer:
        ways.append(f"here with {' or '.join(fewer)} bytes per value")
    return "; ".join(ways) if larger else ", ".join(ways)
