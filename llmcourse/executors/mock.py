"""A model that is all cache and no arithmetic: the next token is a hash of everything read back from the blocks.

It stores each token in the slot that the block table gives it, and reads the whole context back through the table.
One block handed to the wrong owner, one token computed twice or not at all, and the output changes. So a scheduler or a
block pool can be tested for losslessness in microseconds and without torch. Time is a straight line: a fixed cost per
step and one per token. Weeks 2-6.
"""

from collections.abc import Sequence
from zlib import crc32

from llmcourse.engine.batch import Batch, Limits, ScheduledTokens, StepResult

_Block = dict[int, tuple[int, int]]      # offset -> (position, token)
TOKEN_BYTES = 1024                       # what a token's KV counts with when it is sent somewhere


class MockExecutor:
    """Executes batches in ``step_seconds + token_seconds * tokens`` of virtual time.

    Token 0 is its end of sequence: the hash lands there about once in ``vocab_size`` tokens.
    """

    def __init__(self, block_size: int, vocab_size: int = 64, max_length: int = 4096, step_seconds: float = 0.01,
                 token_seconds: float = 0.0001) -> None:
        self.limits = Limits(vocab_size, max_length)
        self.block_size = block_size
        self.step_seconds, self.token_seconds = step_seconds, token_seconds
        self._slots: dict[int, _Block] = {}
        self._host: dict[int, _Block] = {}

        self.block_bytes = block_size * TOKEN_BYTES

    def execute(self, batch: Batch) -> StepResult:
        """Swap and copy blocks, write the new tokens' slots, hash what each sampling request reads back."""
        _move(batch.swap_out, self._slots, self._host)
        _move(batch.copies, self._slots, self._slots)
        _move(batch.swap_in, self._host, self._slots)
        for item in batch.items:
            self._write(item)
        tokens = {item.request.id: self._next_token(self._read(item)) for item in batch.items if item.samples}
        return StepResult(tokens, self.step_seconds + self.token_seconds * batch.num_tokens)

    def read_blocks(self, blocks: Sequence[int], host: bool = False) -> list[_Block]:
        """A copy of what is in these blocks, or in these blocks of host memory."""
        source = self._host if host else self._slots
        return [dict(source.get(block, {})) for block in blocks]

    def write_blocks(self, blocks: Sequence[int], payload: Sequence[_Block]) -> None:
        """Put what another's `read_blocks` gave into these blocks."""
        self._slots.update(zip(blocks, map(dict, payload), strict=True))

    def continue_alone(self, prompt: Sequence[int], max_tokens: int, ignore_eos: bool = False) -> list[int]:
        """What a request must come out as, whatever happens to it on the way: the same hash without any cache."""
        context = list(prompt)
        while len(context) < len(prompt) + max_tokens:
            context.append(self._next_token(list(enumerate(context))))
            if context[-1] == 0 and not ignore_eos:
                break
        return context[len(prompt):]

    def _write(self, item: ScheduledTokens) -> None:
        for position in range(item.start, item.start + item.count):
            block, offset = divmod(position, self.block_size)
            self._slots.setdefault(item.block_table[block], {})[offset] = position, item.request.tokens[position]

    def _read(self, item: ScheduledTokens) -> list[tuple[int, int]]:
        return [self._slots[item.block_table[position // self.block_size]][position % self.block_size]
                for position in range(item.start + item.count)]

    def _next_token(self, context: list[tuple[int, int]]) -> int:
        return crc32(repr(context).encode()) % self.limits.vocab_size


def _move(copies: Sequence[tuple[int, int]], source: dict[int, _Block], destination: dict[int, _Block]) -> None:
    """Copy whole blocks; all are read before any is written. What was never written is copied as nothing."""
    contents = [dict(source.get(block, {})) for block, _ in copies]
    destination.update(zip((block for _, block in copies), contents, strict=True))
