"""Paged attention equals dense attention, whatever the raggedness, the block size and the order of the blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.kv import ContiguousCache, KVStore, PagedAttention, Segment, paged
from llmcourse.model import ModelConfig, Transformer
from llmcourse.model.attention import scaled_dot_product_attention

CONFIG = ModelConfig(vocab_size=50, hidden_size=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4,
                     intermediate_size=32, max_length=128)
MODEL = Transformer(CONFIG, seed=1).eval()
with torch.no_grad():
    for parameter in MODEL.parameters():
        if parameter.dim() == 2:
            parameter.mul_(10)                              # far from zero, so that attention matters


def tokens(count: int, seed: int) -> list[int]:
    return torch.randint(0, CONFIG.vocab_size, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def dense(sequence: list[int]) -> torch.Tensor:
    return MODEL(torch.tensor([sequence]))[0]


@st.composite
def ragged(draw: st.DrawFn) -> tuple[int, list[list[int]]]:
    block_size = draw(st.integers(1, 9))
    requests = draw(st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=5), min_size=1, max_size=4))
    return block_size, requests


@settings(max_examples=60, deadline=None)
@given(ragged(), st.integers(0, 1000), st.sampled_from([0, 10**9]))
@torch.inference_mode()
def test_any_chunking_over_scattered_blocks_equals_dense(case: tuple[int, list[list[int]]], seed: int,
                                                         in_place: int) -> None:
    """Requests are fed in chunks, all in one row a step, their blocks dealt out at random; values gathered or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paged, "IN_PLACE", in_place)
        any_chunking(case, seed)


def any_chunking(case: tuple[int, list[list[int]]], seed: int) -> None:
    block_size, chunkings = case
    sequences = [tokens(sum(chunks), seed + i) for i, chunks in enumerate(chunkings)]
    sizes = [-(-len(s) // block_size) for s in sequences]
    store = KVStore(CONFIG, sum(sizes) + 2, block_size)
    store.data.fill_(1e4)                                   # whoever reads a slot that was never written shows it
    deal = torch.randperm(store.num_blocks, generator=torch.Generator().manual_seed(seed)).tolist()
    tables = [[deal.pop() for _ in range(size)] for size in sizes]
    done = [0] * len(sequences)
    for step in range(max(map(len, chunkings))):
        members = [i for i, chunks in enumerate(chunkings) if step < len(chunks)]
        segments = [Segment(done[i], chunkings[i][step], tables[i]) for i in members]
        row = [t for i, s in zip(members, segments, strict=True) for t in sequences[i][s.start:s.end]]
        logits = MODEL(torch.tensor([row]), PagedAttention(store, segments))[0]
        first = 0
        for i, s in zip(members, segments, strict=True):
            torch.testing.assert_close(logits[first:first + s.count], dense(sequences[i])[s.start:s.end],
                                       atol=1e-4, rtol=1e-4)
            first, done[i] = first + s.count, s.end


@torch.inference_mode()
def test_contiguous_cache_equals_dense_and_is_really_read() -> None:
    """Token by token, and in chunks; and a spoiled cache changes the answer, so it is read and not recomputed."""
    sequence = tokens(20, 3)
    cache = ContiguousCache(CONFIG, max_length=20)
    chunks = [sequence[:7], sequence[7:8], sequence[8:15], sequence[15:]]
    logits = torch.cat([MODEL(torch.tensor([chunk]), cache)[0] for chunk in chunks])
    torch.testing.assert_close(logits, dense(sequence), atol=1e-4, rtol=1e-4)
    assert cache.used_bytes == 20 * CONFIG.kv_bytes_per_token(4)
    spoiled = ContiguousCache(CONFIG, max_length=20)
    MODEL(torch.tensor([sequence[:19]]), spoiled)
    spoiled.keys[:, :, 3] += 1
    assert not torch.allclose(MODEL(torch.tensor([sequence[19:]]), spoiled)[0], dense(sequence)[19:], atol=1e-3)


def test_a_full_cache_says_so() -> None:
    cache = ContiguousCache(CONFIG, max_length=4)
    try:
        MODEL(torch.tensor([tokens(5, 0)]), cache)
    except ValueError as error:
        assert "5 more tokens do not fit" in str(error)
    else:
        raise AssertionError("five tokens went into a cache of four")


def test_store_moves_whole_blocks() -> None:
    """Read from one store, write into another: the seam that copy-on-write, swap and migration use."""
    a, b = KVStore(CONFIG, 6, 4), KVStore(CONFIG, 6, 4)
    a.data.normal_(generator=torch.Generator().manual_seed(0))
    b.write_blocks([5, 0], a.read_blocks([2, 3]))
    assert torch.equal(b.data[:, :, 5], a.data[:, :, 2]) and torch.equal(b.data[:, :, 0], a.data[:, :, 3])
    before = a.data.clone()
    a.copy([(0, 1), (1, 0)])
    assert torch.equal(a.data[:, :, 0], before[:, :, 1]) and torch.equal(a.data[:, :, 1], before[:, :, 0])
    assert a.block_bytes == 4 * CONFIG.kv_bytes_per_token(4)


@torch.inference_mode()
def test_requests_of_unlike_lengths_are_gathered_apart(monkeypatch) -> None:
    """One long context among short ones must not pad them all; cutting the batch changes no logit."""
    ends = [3, 90, 5, 40, 4]
    sequences = [tokens(end, seed) for seed, end in enumerate(ends)]
    store, tables = KVStore(CONFIG, 230, 2), []
    for sequence in sequences:
        tables.append([len(tables) + 5 * block for block in range(-(-len(sequence) // 2))])
        whole = Segment(0, len(sequence) - 1, tables[-1])
        MODEL.hidden(torch.tensor([sequence[:-1]]), PagedAttention(store, [whole]))
    segments = [Segment(end - 1, 1, table) for end, table in zip(ends, tables, strict=True)]
    last = torch.tensor([[sequence[-1] for sequence in sequences]])
    for worth, shapes in ((10**9, [(5, 45)]), (60, [(3, 3), (2, 45)]), (50, [(3, 3), (1, 20), (1, 45)])):
        monkeypatch.setattr(paged, "WORTH_A_GATHER", worth)
        attention = PagedAttention(store, segments)
        assert [(len(g.mask) // 2, g.mask.shape[-1] // 2) for g in attention._singles] == shapes
        logits = MODEL.logits(MODEL.hidden(last, attention)[0])
        for row, sequence in zip(logits, sequences, strict=True):
            torch.testing.assert_close(row, dense(sequence)[-1], rtol=1e-4, atol=1e-5)


def test_both_ways_of_attending_are_the_definition() -> None:
    """By hand (CPU) and by the fused kernel (GPU): what the dense definition gives for each request alone."""
    generator = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(5, heads, 12, 8, generator=generator) for heads in (6, 2, 2))
    q, ends = q[:, :, 0], np.array([12, 1, 7, 11, 4])
    mask = paged.length_mask(ends, 12, KVStore(CONFIG, 1, 1))
    rows = [t.reshape(10, 12, 8) for t in (k, v)]
    by_hand = paged.grouped_attention(q, *rows, mask)
    fused = paged.fused_groups(q.reshape(10, 3, 8), *rows, mask).view(5, 6, 8)
    for r, end in enumerate(ends):
        want = scaled_dot_product_attention(q[r:r + 1, None], *(t[r:r + 1, :, :end].transpose(1, 2) for t in (k, v)))
        torch.testing.assert_close(by_hand[r], want[0, 0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fused[r], want[0, 0], rtol=1e-4, atol=1e-5)
