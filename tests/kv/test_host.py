"""Swapping blocks out and in: what comes back is what went, in the order of a step, at the speed of the link."""

import time

import pytest
import torch

from llmcourse.errors import UserError
from llmcourse.kv.host import HostBlocks
from llmcourse.kv.quantised import QuantisedKVStore
from llmcourse.kv.store import KVStore
from llmcourse.model import ModelConfig

CONFIG = ModelConfig(vocab_size=50, hidden_size=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4,
                     intermediate_size=32, max_length=128)


def filled(kind: type[KVStore]) -> KVStore:
    store = kind(CONFIG, 8, 4)
    store.data.copy_(torch.randint(-100, 100, store.data.shape, generator=torch.Generator().manual_seed(0)))
    return store


@pytest.mark.parametrize("kind", [KVStore, QuantisedKVStore])
def test_what_comes_back_is_what_went(kind: type[KVStore]) -> None:
    store = filled(kind)
    before, host = store.data.clone(), HostBlocks(store, 3)
    host.swap_out([(5, 0), (2, 2)])
    assert torch.equal(store.data, before)
    store.data.zero_()
    host.swap_in([(2, 6), (0, 2)])
    assert torch.equal(store.data[:, :, 6], before[:, :, 2]) and torch.equal(store.data[:, :, 2], before[:, :, 5])
    assert not store.data[:, :, [0, 1, 3, 4, 5, 7]].any()
    assert (host.bytes_out, host.bytes_in) == (2 * store.block_bytes, 2 * store.block_bytes)


def test_all_are_read_before_any_is_written() -> None:
    store = filled(KVStore)
    host = HostBlocks(store, 2)
    host.swap_out([(0, 0), (1, 1)])
    host.swap_out([(0, 1), (1, 0)])
    assert torch.equal(host.data[:, :, 1], store.data[:, :, 0]) and torch.equal(host.data[:, :, 0], store.data[:, :, 1])


def test_a_slow_link_takes_its_time_and_no_link_of_nothing_is_taken() -> None:
    store = filled(KVStore)
    host = HostBlocks(store, 8, bytes_per_second=store.block_bytes / 0.01)
    started = time.perf_counter()
    host.swap_out([(i, i) for i in range(4)])
    host.swap_in([])
    assert time.perf_counter() - started >= 0.04
    with pytest.raises(UserError, match="carries nothing"):
        HostBlocks(store, 8, bytes_per_second=0)
