"""The same question answered by a tree: runs of tokens that part where requests part.

Every path from the root spells a text whose KV is known. Where two texts agree they share nodes, where they part a node
is split. Growing a text costs only its new tokens, and what hangs below a node is what has been asked after it: an
eviction takes leaves. With blocks of one token the tree finds prefixes to the token; with larger blocks (SGLang's page
size) it finds what chained hashes find. Zheng et al., 2024 (SGLang, RadixAttention). Week 6.

    root ── "You are a helpful" ──┬── " translator. Haus"
                                  └── " programmer."  ──┬── " Sort"
                                                        └── " Parse"
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class Node:
    """A run of full blocks without a branch: its tokens, and for each block who holds it (the first answers)."""

    __slots__ = ("children", "holders", "parent", "tokens")

    def __init__(self, tokens: list[int], holders: list[list[int]], parent: Node | None) -> None:
        self.tokens, self.holders, self.parent = tokens, holders, parent
        self.children: dict[tuple[int, ...], Node] = {}       # by the tokens of their first block


class RadixIndex:
    """A `PrefixIndex`: a radix tree over token runs that are cut at multiples of ``block_size``."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.root = Node([], [], None)
        self._nodes: dict[int, Node] = {}                     # by block
        self._holders: dict[int, list[int]] = {}              # by block: those that hold the same, itself too

    def match(self, tokens: Sequence[int]) -> list[int]:
        """Walk down as far as the tokens agree, to the last full block."""
        node, blocks, tokens = self.root, list[int](), list(tokens)
        while child := node.children.get(self._page(tokens, len(blocks))):
            start = len(blocks) * self.block_size
            if tokens[start:start + len(child.tokens)] == child.tokens:
                blocks += [holders[0] for holders in child.holders]
                node = child
                continue
            place = 0
            while self._page(tokens, len(blocks)) == self._page(child.tokens, place):
                blocks.append(child.holders[place][0])
                place += 1
            break
        return blocks

    def insert(self, tokens: Sequence[int], blocks: Sequence[int], after: int | None = None) -> None:
        """Walk down beside what is known, split the node in which the text parts, hang the rest below it."""
        node, place, tokens = self.root, 0, list(tokens)
        if after is not None:
            node, place = self._nodes[after], self._place(after) + 1
        for number, block in enumerate(blocks):
            page = self._page(tokens, number)
            if place == len(node.holders):
                child = node.children.get(page)
                if child is None:
                    return self._hang(node, tokens[number * self.block_size:], blocks[number:])
                node, place = child, 0
            elif self._page(node.tokens, place) != page:
                return self._hang(self._split(node, place), tokens[number * self.block_size:], blocks[number:])
            if block not in self._nodes:
                node.holders[place].append(block)
                self._nodes[block], self._holders[block] = node, node.holders[place]
            place += 1

    def holder(self, block: int) -> int | None:
        """The first block at the same place of the tree."""
        holders = self._holders.get(block)
        return None if holders is None else holders[0]

    def forget(self, block: int) -> list[int]:
        """Drop it; when nobody else holds its place, all that hangs below it goes too."""
        place, node = self._place(block), self._nodes.pop(block)
        self._holders.pop(block).remove(block)
        if node.holders[place]:
            return [block]
        lost = [other for holders in node.holders[place + 1:] for other in holders]
        lost += [other for below in _below(node) for holders in below.holders for other in holders]
        for other in lost:
            del self._nodes[other], self._holders[other]
        first = self._page(node.tokens, 0)
        del node.holders[place:], node.tokens[place * self.block_size:]
        node.children.clear()
        if not node.holders and node.parent is not None:
            del node.parent.children[first]
        return [block, *lost]

    def check_invariants(self) -> None:
        """Nodes are whole, children hang where they begin, and every block is where the books say."""
        seen: dict[int, Node] = {}
        for node in _below(self.root):
            assert len(node.tokens) == len(node.holders) * self.block_size > 0, "a node holds more or less than it says"
            for key, child in node.children.items():
                assert child.parent is node and self._page(child.tokens, 0) == key, "a child hangs astray"
            for holders in node.holders:
                assert holders and not any(block in seen for block in holders), "a block is nowhere or twice"
                assert all(self._holders.get(block) is holders for block in holders), "a block names other holders"
                seen.update(dict.fromkeys(holders, node))
        assert seen == self._nodes, "the nodes of the blocks and the blocks of the nodes differ"
        assert self._holders.keys() == self._nodes.keys(), "a block has a node and no holders, or holders and no node"

    # ---- the tree ------------------------------------------------------------------------------------------------

    def _page(self, tokens: list[int], number: int) -> tuple[int, ...]:
        return tuple(tokens[number * self.block_size:(number + 1) * self.block_size])

    def _place(self, block: int) -> int:
        """Which block of its node's run it is, looked for from the end: that is where runs grow and shrink."""
        run, holders = self._nodes[block].holders, self._holders[block]
        return next(place for place in range(len(run) - 1, -1, -1) if run[place] is holders)

    def _hang(self, node: Node, tokens: list[int], blocks: Sequence[int]) -> None:
        """What nobody has held before: the run grows when it ends here, else a new branch begins."""
        if node is self.root or node.children:
            child = Node([], [], node)
            node.children[self._page(tokens, 0)] = child
            node = child
        node.tokens += tokens[:len(blocks) * self.block_size]
        for block in blocks:
            self._nodes[block], self._holders[block] = node, [block]
            node.holders.append(self._holders[block])

    def _split(self, node: Node, place: int) -> Node:
        """Make the first ``place`` blocks of the run a node of their own, above the rest; returns it."""
        parent, cut = node.parent, place * self.block_size
        assert parent is not None, "the root holds nothing that could be split"
        upper = Node(node.tokens[:cut], node.holders[:place], parent)
        parent.children[self._page(upper.tokens, 0)] = upper
        del node.tokens[:cut], node.holders[:place]
        node.parent = upper
        upper.children[self._page(node.tokens, 0)] = node
        self._nodes.update((block, upper) for holders in upper.holders for block in holders)
        return upper


def _below(node: Node) -> Iterator[Node]:
    """All nodes below this one."""
    open_ends = list(node.children.values())
    while open_ends:
        node = open_ends.pop()
        open_ends += node.children.values()
        yield node
