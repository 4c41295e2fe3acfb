"""Muon: momentum whose matrix is made orthogonal before it is applied.

A gradient matrix is dominated by a few directions; a step along it mostly repeats them. Muon replaces the momentum
G = U S V' by about U V', so that every direction moves alike, by a few Newton-Schulz iterations instead of an SVD.
The iterations run in float32 and on all matrices of one shape at once: on a CPU without bfloat16
units that is many times faster.

Reference: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024). Week 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # the quintic of the reference: steep at zero, near one elsewhere


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Push the singular values of each matrix towards one: (N, rows, columns) -> the same shape."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon:
    """Nesterov momentum, orthogonalised, with the step scaled to the size that AdamW's would have."""

    def __init__(self, matrices: Iterable[Tensor], momentum: float = 0.95, weight_decay: float = 0.1) -> None:
        groups: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for matrix in matrices:
            groups[matrix.shape].append(matrix)
        self.groups = list(groups.values())
        self.buffers = [torch.zeros(len(group), *group[0].shape) for group in self.groups]
        self.momentum, self.weight_decay = momentum, weight_decay

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every matrix by one step of this learning rate. Every matrix must have a gradient."""
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            gradients = torch.stack([matrix.grad for matrix in group if matrix.grad is not None])
            buffer.lerp_(gradients, 1 - self.momentum)
            update = orthogonalise(gradients.lerp(buffer, self.momentum))
            scale = 0.2 * max(group[0].shape) ** 0.5
            for matrix, change in zip(group, update, strict=True):
                matrix.mul_(1 - rate * self.weight_decay).sub_(change, alpha=rate * scale)

    def state_dict(self) -> dict[str, list[Tensor]]:
        """What a checkpoint must keep."""
        return {"buffers": self.buffers}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Go on from a checkpoint of the same matrices."""
        self.buffers = state["buffers"]
