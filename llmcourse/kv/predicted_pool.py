"""Contiguous KV memory reserved by prediction: room for what somebody expects an answer to need, and no more.

Reserving the model's maximum wastes what is not said, and nobody is told the true length. A predictor's word lies
between the two: a guess too large wastes the rest, a guess too small ends in an overrun, and whoever overruns must give
its place back and come again with more. Jin et al., 2023 (S3). Weeks 6 and 9.
"""

from collections.abc import Collection, Hashable, Mapping, Sequence

from llmcourse.kv.contiguous_pool import ContiguousPool
from llmcourse.kv.memory import Copy, OutOfBlocks


class PredictedPool(ContiguousPool):
    """A run has room for what ``allowed`` says of its owner (tokens, prompt included; a live view) and does not grow.

    Only an owner who is alone may take what is free: to throw it out would make room for nobody. Who is not in
    ``allowed``, may have as many tokens as it will come to hold. Whether a request fits can be asked by `fits` only:
    `can_open` does not know whose tokens they are, and answers for the tokens alone.
    """

    def __init__(self, num_blocks: int, block_size: int, allowed: Mapping[Hashable, int], fit: str = "first") -> None:
        super().__init__(num_blocks, block_size, "exact", fit)
        self.allowed = allowed

    def fits(self, owner: Hashable, num_tokens: int, longest: int) -> bool:
        """Whether `open` with so many tokens would succeed for this owner now."""
        return super().can_open(range(num_tokens), self.allowed.get(owner, longest))

    def can_open(self, tokens: Sequence[int], longest: int, without: Collection[Hashable] = ()) -> bool:
        """Whether one hole is large enough for the tokens as they are."""
        return super().can_open(tokens, len(tokens), without)

    def open(self, owner: Hashable, tokens: Sequence[int], longest: int) -> int:
        """Open a run with room for what the owner is allowed; returns 0. Raises `OutOfBlocks`, ValueError."""
        return super().open(owner, tokens, self.allowed.get(owner, longest))

    def reserve(self, owner: Hashable, length: int) -> tuple[list[Copy], list[int]]:
        """Room within the run. Raises `OutOfBlocks` for an overrun, whatever is free behind it; KeyError."""
        most = self._most(owner)
        if len(self.runs) > 1 and length > max(most, self.length(owner)):
            raise OutOfBlocks(f"{owner!r} needs room for {length} tokens and is allowed {most}")
        return super().reserve(owner, length)

    def rounds_that_fit(self, owners: Sequence[Hashable], rounds: int) -> int:
        """At most ``rounds``: for how many tokens more everybody stays in the room it has.

        For an owner who is alone and has used it up: how many more find room behind it.
        """
        room = min([len(self.runs[owner]) * self.block_size - self.length(owner) for owner in owners], default=rounds)
        if len(self.runs) == 1:
            return min(rounds, room) if room else super().rounds_that_fit(owners, rounds)
        return max(0, min([rounds, room, *[self._most(owner) - self.length(owner) for owner in owners]]))

    def _most(self, owner: Hashable) -> int:
        return self.allowed.get(owner, len(self.runs[owner]) * self.block_size)
