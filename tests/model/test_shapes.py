"""The table of shapes gives the numbers that the models' own reports print."""

import subprocess
import sys

import pytest

from llmcourse.errors import UserError
from llmcourse.model.config import ModelConfig
from llmcourse.model.shapes import SHAPES, shape

PUBLISHED = {  # parameters in billions, as the reports or model pages print them
    "Llama 1 7B": 6.74, "Llama 1 13B": 13.02, "Llama 1 33B": 32.53, "Llama 1 65B": 65.29,
    "Llama 2 7B": 6.74, "Llama 2 13B": 13.02, "Llama 2 70B": 68.98,
    "Llama 3 8B": 8.03, "Llama 3 70B": 70.55, "Llama 3.1 405B": 405.85, "Llama 3.2 1B": 1.236, "Llama 3.2 3B": 3.213,
    "Qwen2.5 0.5B": 0.494, "Qwen2.5 1.5B": 1.544, "Qwen2.5 3B": 3.086, "Qwen2.5 7B": 7.616, "Qwen2.5 14B": 14.77,
    "Qwen2.5 32B": 32.76, "Qwen2.5 72B": 72.71, "Qwen3 0.6B": 0.596, "Qwen3 1.7B": 1.721, "Qwen3 4B": 4.022,
    "Qwen3 8B": 8.191, "Qwen3 14B": 14.768, "Qwen3 32B": 32.762, "Mistral 7B": 7.242, "SmolLM2 135M": 0.1345,
    "OPT 13B": 12.85, "OPT 66B": 65.72, "OPT 175B": 174.6, "GPT-3 175B": 175.0, "BLOOM 176B": 176.25,
}


def test_every_shape_has_the_published_number_of_parameters() -> None:
    assert set(SHAPES) == set(PUBLISHED)
    for name, billions in PUBLISHED.items():
        assert SHAPES[name].num_parameters / 1e9 == pytest.approx(billions, rel=0.002), name


def test_gpt_3_takes_350_gb_in_fp16() -> None:
    assert shape("GPT-3 175B").weight_bytes(2) == 350e9


def test_kv_bytes_per_token_of_the_literature() -> None:
    assert shape("OPT 13B").kv_bytes_per_token() == 800 * 1024
    assert shape("Llama 2 7B").kv_bytes_per_token() == 512 * 1024
    assert shape("Llama 3 8B").kv_bytes_per_token() == 128 * 1024
    assert shape("Llama 2 70B").kv_bytes_per_token() == 320 * 1024


def test_every_shape_is_a_config_with_a_source() -> None:
    for name, config in SHAPES.items():
        assert isinstance(config, ModelConfig) and config.name == name and config.source


@pytest.mark.parametrize("name", ["llama-3-8b", "LLAMA 3 8B", "Llama3 8B"])
def test_names_are_read_generously(name) -> None:
    assert shape(name).name == "Llama 3 8B"


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(UserError, match=r"GPT-5.*Llama 3 8B"):
        shape("GPT-5")


def test_a_point_in_a_name_counts() -> None:
    assert len({shape(name).name for name in SHAPES}) == len(SHAPES)
    with pytest.raises(UserError):
        shape("Llama 32 1B")


def test_no_torch_is_loaded() -> None:
    code = ("import sys, llmcourse.model.shapes as s, llmcourse.metrics.roofline, llmcourse.metrics.hardware as h; "
            "s.SHAPES, h.HARDWARE; sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
