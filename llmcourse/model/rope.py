"""Rotary position embedding (Su et al., 2021): a position becomes a rotation of queries and keys.

Each pair of values in a head is turned by an angle ``position * frequency``. The dot product of a rotated query and a
rotated key then depends only on how far apart they stand. The pairs are ``(i, i + head_dim/2)``, as in Llama
checkpoints; the paper pairs neighbours, which is the same up to a permutation. Week 1.
"""

import math

import torch
from torch import Tensor

from llmcourse.model.config import ModelConfig, RopeScaling


def rope_frequencies(config: ModelConfig) -> Tensor:
    """Radians per position of each pair, fastest first: (head_dim / 2,) float32."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    return frequencies if config.rope_scaling is None else _stretch(frequencies, config.rope_scaling)


def _stretch(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    wavelengths = 2 * math.pi / frequencies
    # 1 where the wave is short enough to keep, 0 where it is long enough to slow down, a blend between.
    keep = (scaling.original_length / wavelengths - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor)
    keep = keep.clamp(0, 1)
    return keep * frequencies + (1 - keep) * frequencies / scaling.factor


def rope_angles(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine for each position and pair: positions (..., T) -> two (..., T, 1, head_dim / 2)."""
    angles = positions.to(frequencies.dtype)[..., None, None] * frequencies
    return angles.cos(), angles.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate every head of ``x`` (..., T, heads, head_dim) by its position's angles; the result has x's dtype."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
