"""Training: it learns, it can be stopped and resumed to the same weights, and the command writes a whole folder."""

import json
import signal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.model import ModelConfig, Transformer, load_model
from llmcourse.model.tokenizer import Tokenizer
from llmcourse.model.training import command, evaluation
from llmcourse.model.training.card import model_card
from llmcourse.model.training.muon import Muon, orthogonalise
from llmcourse.model.training.trainer import Trainer, TrainSettings, train_tokenizer

SMALL = ModelConfig(vocab_size=1024, hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=8,
                    intermediate_size=32, max_length=512, tie_embeddings=True)
SETTINGS = TrainSettings(steps=6, tokens_per_step=300, warmup=2)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(seed=0, samples=500)


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def test_the_loss_falls(tokenizer):
    trainer = Trainer(TrainSettings(steps=30, tokens_per_step=400, warmup=3, steady=0.9), tokenizer, SMALL)
    losses = list(trainer.run())
    assert losses[0] == pytest.approx(6.9, abs=0.2)  # ln 1024: knows nothing yet
    assert sum(losses[-5:]) / 5 < losses[0] - 0.5
    assert trainer.step == 30


def test_a_resumed_run_ends_with_the_same_weights(tokenizer, tmp_path):
    through = Trainer(SETTINGS, tokenizer, SMALL)
    list(through.run())
    first = Trainer(SETTINGS, tokenizer, SMALL)
    for _ in first.run():
        if first.step == 3:
            break
    first.save(tmp_path / "state.pt")
    second = Trainer(SETTINGS, tokenizer, SMALL)
    second.resume(tmp_path / "state.pt")
    assert second.step == 3
    list(second.run())
    assert second.losses == through.losses
    assert second.tokens == through.tokens
    assert all(torch.equal(a, b) for a, b in zip(weights(second), weights(through), strict=True))


def test_resuming_with_other_settings_is_refused(tokenizer, tmp_path):
    Trainer(SETTINGS, tokenizer, SMALL).save(tmp_path / "state.pt")
    other = Trainer(TrainSettings(steps=7, tokens_per_step=300, warmup=2), tokenizer, SMALL)
    with pytest.raises(UserError, match=r"'steps': 6.*asked for.*'steps': 7.*without --resume"):
        other.resume(tmp_path / "state.pt")


def test_resuming_nothing_says_so(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"state.pt does not exist.*without --resume"):
        Trainer(SETTINGS, tokenizer, SMALL).resume(tmp_path / "state.pt")


def test_the_rate_warms_up_stays_and_falls_to_zero():
    settings = TrainSettings(steps=1000, warmup=100, steady=0.6, late_rate=0.5)
    assert settings.rate(0) == pytest.approx(0.01)
    assert settings.rate(99) == settings.rate(300) == settings.rate(599) == 1.0
    assert not settings.is_late(599) and settings.is_late(600)
    assert settings.rate(600) == pytest.approx(0.5)
    assert settings.rate(800) == pytest.approx(0.25)
    assert settings.rate(999) < 0.003


@given(st.integers(0, 1000), st.sampled_from([(3, 5), (5, 3), (4, 4)]))
def test_orthogonalised_matrices_have_singular_values_near_one(seed, shape):
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.randn(2, *shape, generator=generator)
    before, after = torch.linalg.svdvals(matrices), torch.linalg.svdvals(orthogonalise(matrices))
    kept = before > 0.05 * before[:, :1]  # five iterations lift values from about a twentieth of the largest
    assert (after[kept] > 0.5).all()
    assert (after < 1.3).all()


def test_muon_moves_downhill_whatever_the_scale_of_the_gradient():
    for scale in (1e-3, 1e3):
        matrix = torch.eye(4, requires_grad=True)
        muon = Muon([matrix], weight_decay=0.0)
        (scale * matrix.square().sum()).backward()
        muon.step(rate=0.1)
        assert 0.9 < float(matrix.detach().diagonal().mean()) < 1.0


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """The command with a small model, two prompts and short answers."""
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"kind": "add", "argument": 0, "prompt": "1 + 1 = ?", "answer": "2"},
            {"kind": "story", "argument": 0, "prompt": "Tell me a story.", "answer": None}]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(command, "PROMPTS", prompts)
    monkeypatch.setattr(command, "HELD_OUT_DOCUMENTS", 3)
    monkeypatch.setattr(command, "COURSE_TINY", SMALL)
    monkeypatch.setattr(command, "train_tokenizer", lambda seed: train_tokenizer(seed, samples=500))
    monkeypatch.setattr(evaluation, "MAX_TOKENS", 5)
    return tmp_path / "out"


def test_the_command_writes_a_folder_that_loads(quick, capsys):
    threads = str(torch.get_num_threads())
    assert command.train(["--steps", "2", "--out", str(quick), "--json", "--threads", threads]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((quick / "training_report.json").read_text())
    assert (quick / "README.md").read_text() == model_card(report)
    assert report["evaluation"]["prompts"] == 2
    model, tokenizer = load_model(quick, device="cpu")
    assert isinstance(model, Transformer)
    assert tokenizer is not None
    assert tokenizer.eos_ids == {tokenizer.end_id}
    assert command.train(["--steps", "2", "--out", str(quick), "--resume", "--threads", threads]) == 0
    assert "2 steps" in capsys.readouterr().out


def test_ctrl_c_keeps_what_was_learned(quick, monkeypatch):
    def interrupted(self):
        signal.raise_signal(signal.SIGINT)
        yield 0.0

    monkeypatch.setattr(Trainer, "run", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)      # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            command.train(["--steps", "2", "--out", str(quick)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert (quick / "state.pt").is_file()


@pytest.mark.parametrize("option", ["--steps", "--threads"])
def test_nothing_to_do_is_refused(option):
    with pytest.raises(UserError, match=f"{option} is 0; it must be at least 1"):
        command.train([option, "0"])
