"""Sinusoidal positions: a fixed pattern of waves, added to each token's vector, that says where it stands.

Without positions attention sees a bag of tokens. Each pair of channels is the sine and cosine of the position at its
own wavelength, from 2 pi to 10,000 times that, like the hands of ever slower clocks. Later models turn queries and keys
instead (`rope.py`). Vaswani et al., "Attention is all you need", 2017. Week 1.
"""

import torch
from torch import Tensor


def sinusoidal_positions(length: int, size: int, longest: float = 10000.0) -> Tensor:
    """The patterns of positions 0 ... length - 1: (length, size) float32, sines in even channels, cosines in odd ones.

    Raises ValueError when ``size`` is odd: channels come in pairs.
    """
    if size % 2:
        raise ValueError(f"size is {size}; sines and cosines come in pairs, so it must be even")
    frequencies = longest ** (-torch.arange(0, size, 2) / size)             # (size / 2,)
    angles = torch.arange(length)[:, None] * frequencies                    # (length, size / 2)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
