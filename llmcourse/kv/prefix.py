"""Which block holds the KV of this text already? A map from chained hashes of full blocks to block numbers.

KV depends on a token and on all before it, so two requests that begin with the same tokens can read the same blocks.
The name of a block is the hash of its tokens and of the name of the block before it: equal names mean equal beginnings,
whoever computed them. A hash that left the parent out would hand out the KV of the same words in another context.
Kwon et al., 2023, and vLLM v1, 2025, where this is called automatic prefix caching. Week 6.

    name of block 0 = H(root, tokens 0-15)     name of block 1 = H(name of block 0, tokens 16-31)     ...
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

ROOT = b""                               # the name of what stands before the first block


class PrefixIndex(Protocol):
    """Full blocks by what they hold. It owns no memory: `PrefixPool` says when a block is full and when it is gone.

    Several blocks may hold the same tokens at the same place (two requests that computed them at the same time). The
    first that was inserted answers for all; when it is forgotten, the next takes over.
    """

    block_size: int

    def match(self, tokens: Sequence[int]) -> list[int]:
        """The blocks that hold the longest known beginning of ``tokens``, in order; changes nothing."""
        ...

    def insert(self, tokens: Sequence[int], blocks: Sequence[int], after: int | None = None) -> None:
        """``blocks`` hold ``tokens`` (full blocks), which go on where the known block ``after`` ends (None: the start).

        Blocks that are known stay as they are. Raises KeyError when ``after`` is unknown.
        """
        ...

    def holder(self, block: int) -> int | None:
        """The block that `match` returns for what this one holds: itself or an equal one; None: it is not known."""
        ...

    def forget(self, block: int) -> list[int]:
        """The block will hold something else: known blocks that cannot be found any more, itself first.

        Nothing but itself as long as children are forgotten before their parents. Raises KeyError.
        """
        ...

    def check_invariants(self) -> None:
        """AssertionError that names what is wrong inside."""
        ...


class HashIndex:
    """Chained digests of full blocks of ``block_size`` tokens; token ids are hashed as 64 bits with their sign.

    Forgetting a block hides those that go on from it until their parent is known again; they do not come up as wrong
    hits, because their names depend on all that stands before them.
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self._names: dict[int, bytes] = {}                    # by block
        self._holders: dict[bytes, list[int]] = {}            # by name: the first answers for all

    def match(self, tokens: Sequence[int]) -> list[int]:
        """Walk until the first block that nobody has: its cost grows with the hit, not with the prompt."""
        blocks, name, size = [], ROOT, self.block_size
        for start in range(0, len(tokens) - size + 1, size):
            name = chained(name, tokens[start:start + size])
            holders = self._holders.get(name)
            if holders is None:
                break
            blocks.append(holders[0])
        return blocks

    def insert(self, tokens: Sequence[int], blocks: Sequence[int], after: int | None = None) -> None:
        """Name each block after its tokens and its parent's name."""
        name, size = ROOT if after is None else self._names[after], self.block_size
        for place, block in enumerate(blocks):
            name = chained(name, tokens[place * size:(place + 1) * size])
            if block not in self._names:
                self._names[block] = name
                self._holders.setdefault(name, []).append(block)

    def holder(self, block: int) -> int | None:
        """The first block of the same name."""
        name = self._names.get(block)
        return None if name is None else self._holders[name][0]

    def forget(self, block: int) -> list[int]:
        """Drop the entry, or leave it to the next block of the same name."""
        holders = self._holders[name := self._names.pop(block)]
        holders.remove(block)
        if not holders:
            del self._holders[name]
        return [block]

    def check_invariants(self) -> None:
        """Both maps say the same."""
        held = {block: name for name, holders in self._holders.items() for block in holders}
        assert held == self._names, "the names of the blocks and the blocks of the names differ"
        assert len(held) == sum(map(len, self._holders.values())), "a block stands under a name twice"


def chained(parent: bytes, tokens: Sequence[int]) -> bytes:
    """The name of a block: 16 bytes of BLAKE2b over its parent's name and its tokens."""
    return blake2b(parent + array("q", tokens).tobytes(), digest_size=16).digest()
