"""Padded decode steps say what unpadded ones say; only the recording needs a GPU."""

import pytest
import torch

from llmcourse.executors.padded import PaddedDecode, bucket
from llmcourse.executors.prepared import PreparedModel
from llmcourse.kv import KVStore, PagedAttention, Segment
from llmcourse.kv.quantised import QuantisedKVStore
from llmcourse.model import ModelConfig, Transformer

CONFIG = ModelConfig(vocab_size=70, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8,
                     intermediate_size=48, max_length=256)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"))]


def test_buckets() -> None:
    assert sorted({bucket(n) for n in range(1, 50)}) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    assert all(n <= bucket(n) <= 1.5 * n for n in range(1, 3000))


@pytest.mark.parametrize("device", DEVICES)
@torch.inference_mode()
def test_steps_of_any_size_agree_with_unpadded_ones(device: str) -> None:
    """A crowd that shrinks and grows, step by step, in two stores: one padded, one not."""
    model = Transformer(CONFIG, seed=4).to(device)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.mul_(4)
    prepared = PreparedModel(model)
    stores = [KVStore(CONFIG, 80, 4, device), KVStore(CONFIG, 80, 4, device)]
    decode, generator = PaddedDecode(prepared, stores[0]), torch.Generator().manual_seed(0)
    deal = torch.randperm(80, generator=generator).tolist()
    tables, lengths = [[deal.pop() for _ in range(11)] for _ in range(7)], [1, 9, 30, 4, 17, 2, 5]
    for table, length in zip(tables, lengths, strict=True):
        prompt = torch.randint(0, 70, (1, length), generator=generator).to(device)
        for store in stores:
            prepared.hidden(prompt, PagedAttention(store, [Segment(0, length, table)]))
    for members in ([0, 1, 2, 3, 4, 5, 6], [2, 6, 0], [2], [1, 2, 3, 4, 5], [6, 0], [0, 3, 5, 1, 4, 6]):
        tokens = torch.randint(0, 70, (len(members),), generator=generator).tolist()
        segments = [Segment(lengths[i], 1, tables[i]) for i in members]
        found = decode.logits(tokens, segments)
        hidden = prepared.hidden(torch.tensor([tokens], device=device), PagedAttention(stores[1], segments))[0]
        torch.testing.assert_close(found, prepared.logits(hidden), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(stores[0].data, stores[1].data, rtol=1e-4, atol=1e-4)
        for i in members:
            lengths[i] += 1
    assert {rows for rows, _ in decode.steps} == {8, 3, 1, 6, 2}
    assert all((step.graph is not None) == (device == "cuda") for step in decode.steps.values())


@torch.inference_mode()
def test_a_second_step_of_a_shape_reads_its_own_inputs_at_the_old_places() -> None:
    """What a recording needs: the tensors of the first step stay where they are, and later steps are copied there."""
    prepared = PreparedModel(Transformer(CONFIG, seed=4))
    decode = PaddedDecode(prepared, KVStore(CONFIG, 8, 4))
    first = decode.logits([5], [Segment(0, 1, [3])]).clone()
    step = decode.steps[1, 1]
    places = [step.row.data_ptr(), step.attention._positions.data_ptr(), step.attention._singles[0].mask.data_ptr(),
              step.attention._singles[0].scratch.data_ptr()]
    decode.store.scratch(torch.zeros(10**4, dtype=torch.int64))             # the shared buffer moves
    second = decode.logits([9], [Segment(0, 1, [6])])
    assert len(decode.steps) == 1 and not torch.allclose(first, second)
    assert places == [step.row.data_ptr(), step.attention._positions.data_ptr(),
                      step.attention._singles[0].mask.data_ptr(), step.attention._singles[0].scratch.data_ptr()]
    assert torch.equal(decode.logits([5], [Segment(0, 1, [3])]), first)


def test_a_store_whose_buffers_move_is_refused() -> None:
    with pytest.raises(ValueError, match="full precision"):
        PaddedDecode(PreparedModel(Transformer(CONFIG)), QuantisedKVStore(CONFIG, 4, 4))
