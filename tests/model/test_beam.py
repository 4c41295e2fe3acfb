"""Beam search equals exhaustive search when wide, greedy when narrow, and transformers' in between."""

import itertools

import pytest
import torch

from llmcourse.errors import UserError
from llmcourse.model import ModelConfig, Transformer, save_model
from llmcourse.model.decoding import Beam, BeamNode, beam_search, generate

CONFIG = ModelConfig(vocab_size=6, hidden_size=16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8,
                     intermediate_size=32, max_length=64)
END = 0


def model_of(seed: int, vocab_size: int = 6) -> Transformer:
    model = Transformer(ModelConfig(**{**vars(CONFIG), "vocab_size": vocab_size}), seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(12)
    return model


def log_probability(model: Transformer, prompt: list[int], tokens: tuple[int, ...]) -> float:
    with torch.no_grad():
        steps = model(torch.tensor([[*prompt, *tokens]]))[0, len(prompt) - 1:-1].log_softmax(-1)
    return float(steps.gather(1, torch.tensor(tokens)[:, None]).sum())


def every_text(length: int) -> list[tuple[int, ...]]:
    """All texts that end in END or reach the length, and do neither earlier."""
    texts = []
    for n in range(1, length + 1):
        for text in itertools.product(range(6), repeat=n):
            if END not in text[:-1] and (text[-1] == END or n == length):
                texts.append(text)
    return texts


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_is_exhaustive(seed, length_penalty) -> None:
    model, prompt = model_of(seed), [1, 2, 3]
    truth = sorted(every_text(3), reverse=True,
                   key=lambda text: log_probability(model, prompt, text) / len(text)**length_penalty)
    beams = beam_search(model, prompt, 300, 3, {END}, length_penalty)
    assert [beam.tokens for beam in beams[:10]] == truth[:10]
    assert len(beams) == len(truth)


@pytest.mark.parametrize("seed", range(6))
def test_a_beam_of_one_without_a_length_penalty_is_greedy(seed) -> None:
    model = model_of(seed)
    [beam] = beam_search(model, [1, 2], 1, 12, {END}, length_penalty=0.0)
    assert list(beam.tokens) == generate(model, [1, 2], 12, eos_ids={END})
    assert beam.finished == (beam.tokens[-1] == END)


@pytest.mark.parametrize("seed", range(4))
def test_what_it_reports_is_true(seed) -> None:
    model = model_of(seed)
    beams = beam_search(model, [1, 2], 4, 8, {END})
    scores = [beam.score(1.0) for beam in beams]
    assert scores == sorted(scores, reverse=True) and len(set(beams)) == len(beams) == 4
    for beam in beams:
        assert beam.log_probability == pytest.approx(log_probability(model, [1, 2], beam.tokens), abs=1e-3)
        assert END not in beam.tokens[:-1]                      # nothing is said after the end
        assert beam.finished == (beam.tokens[-1] == END)
        assert beam.finished or len(beam.tokens) == 8


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_transformers(seed, length_penalty, tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    model = model_of(seed, vocab_size=30)
    save_model(model, tmp_path)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    prompt, width = [4, 5, 6], 4
    out = theirs.generate(torch.tensor([prompt]), num_beams=width, max_new_tokens=10, do_sample=False, eos_token_id=END,
                          pad_token_id=END, length_penalty=length_penalty, early_stopping="never",
                          num_return_sequences=1)[0, len(prompt):].tolist()
    best = beam_search(model, prompt, width, 10, {END}, length_penalty)[0]
    assert list(best.tokens) == out[:len(best.tokens)] and set(out[len(best.tokens):]) <= {END}


class Scripted:
    """A model whose next-token probabilities depend on the last token only, as a table says."""

    def __init__(self, table: dict[int, dict[int, float]]) -> None:
        self.config = CONFIG
        self.embedding = torch.zeros(1)
        self.rows = torch.full((6, 6), -1e9)
        for last, following in table.items():
            for token, probability in following.items():
                self.rows[last, token] = torch.tensor(probability).log()

    def hidden(self, tokens, attention):
        attention.advance(tokens.shape[1])
        return tokens

    def logits(self, hidden):
        return self.rows[hidden]


def test_a_finished_text_is_kept_while_others_go_on_and_length_is_allowed_for() -> None:
    # 1 either ends at once (0.4), or goes on for sure after 2 (0.6): 2 3 4 END has 0.6 in all.
    model = Scripted({1: {2: 0.6, END: 0.4}, 2: {3: 0.5, 5: 0.5}, 3: {4: 1.0}, 4: {END: 1.0}, 5: {4: 1.0}})
    by_probability = beam_search(model, [1], 2, 6, {END}, length_penalty=0.0)
    assert by_probability[0] == Beam((END,), pytest.approx(-0.9163, abs=1e-3), True)
    by_token = beam_search(model, [1], 2, 6, {END}, length_penalty=1.0)
    assert by_token[0].tokens in {(2, 3, 4, END), (2, 5, 4, END)} and by_token[0].finished


def test_a_beam_finds_what_greedy_misses() -> None:
    model = Scripted({1: {2: 0.6, 3: 0.4}, 2: {4: 0.51, 5: 0.49}, 3: {END: 1.0}, 4: {END: 1.0}, 5: {END: 1.0}})
    assert beam_search(model, [1], 1, 3, {END}, 0.0)[0].tokens == (2, 4, END)
    assert beam_search(model, [1], 3, 3, {END}, 0.0)[0].tokens == (3, END)


def test_the_tree_records_every_candidate() -> None:
    tree: list[BeamNode] = []
    beams = beam_search(model_of(0), [1, 2], 3, 5, {END}, tree=tree)
    kept = [node for node in tree if node.fate == "kept"]
    assert all(len([node for node in kept if node.depth == depth]) <= 3 for depth in range(1, 6))
    assert {node.depth for node in tree} == set(range(1, max(node.depth for node in tree) + 1))
    for node in tree:
        assert (node.parent is None) == (node.depth == 1)
        if node.parent is not None:
            parent = tree[node.parent]
            assert parent.fate == "kept" and parent.depth == node.depth - 1
            assert node.log_probability <= parent.log_probability + 1e-5

    def text(node: BeamNode) -> tuple[int, ...]:
        return (*(() if node.parent is None else text(tree[node.parent])), node.token)

    assert {beam.tokens for beam in beams} <= {text(node) for node in tree if node.fate != "dropped"}


def test_a_beam_wider_than_the_vocabulary_and_without_an_end() -> None:
    beams = beam_search(model_of(0), [1], 20, 2)
    assert len(beams) == 20 and not any(beam.finished for beam in beams)


@pytest.mark.parametrize(("arguments", "named"), [
    (([1], 0, 4), "width"), (([1], 2, 0), "max_tokens"), (([], 2, 4), "no tokens"), (([99], 2, 4), "token 99"),
    (([1], 2, 4, {END}, -1.0), "length_penalty"),
])
def test_bad_input(arguments, named) -> None:
    with pytest.raises(UserError, match=named):
        beam_search(model_of(0), *arguments)
