"""Weights in Hugging Face's names and layout, to and from `safetensors` files.

A checkpoint is a set of named tensors in one file, or in several with an index that says which file holds which. Here a
linear layer is ``x @ W`` with W [in, out]; there it is stored [out, in], so every projection is turned over on the way.
Names and shapes are all compared before a single value is read: a wrong file is refused in one line. Week 1.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llmcourse.errors import UserError
from llmcourse.model.hf_config import read_json
from llmcourse.model.transformer import Transformer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
IGNORED = "rotary_emb.inv_freq"                                 # old checkpoints carry this constant in every layer
FLOATS = ("F32", "F16", "BF16", "F64")
_PARTS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm", "attention": "self_attn"}


def hf_name(name: str) -> str:
    """Hugging Face's name of one of our parameters: ``blocks.0.attention.q_proj.weight`` and so on."""
    if name == "embedding":
        return "model.embed_tokens.weight"
    if name.startswith("lm_head"):
        return name
    if not name.startswith("blocks."):
        return f"model.{name}"
    _, layer, part, rest = name.split(".", 3)
    return f"model.layers.{layer}.{_PARTS.get(part, part)}.{rest}"


def turned(name: str, tensor: Tensor) -> Tensor:
    """The tensor as the other side stores it: projections change between [in, out] and [out, in]."""
    return tensor.T.contiguous() if tensor.dim() == 2 and name != "embedding" else tensor


def _stored_shape(name: str, tensor: Tensor) -> list[int]:
    return list(tensor.shape) if name == "embedding" else list(reversed(tensor.shape))


def write_weights(model: Transformer, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write ``model.safetensors``; a file already there is replaced only once the new one is whole."""
    tensors = {hf_name(name): turned(name, parameter.detach().to("cpu", dtype)).contiguous()
               for name, parameter in model.named_parameters()}
    partial = folder / (WEIGHTS + ".partial")
    save_file(tensors, partial, metadata={"format": "pt"})
    os.replace(partial, folder / WEIGHTS)


def read_weights(model: Transformer, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
    """Replace a model's weights by those of a folder. Raises UserError naming file and tensor."""
    found = _Index(folder)
    ours = {hf_name(name): name for name, _ in model.named_parameters()}
    _compare_names(set(ours), set(found.homes), folder, model.config.tie_embeddings)
    for theirs, name in ours.items():
        found.check(theirs, _stored_shape(name, model.get_parameter(name)))
    state = {}
    for theirs, tensor in found.tensors(set(ours)):
        state[ours[theirs]] = turned(ours[theirs], tensor.to(device, dtype))
    model.load_state_dict(state, assign=True)
    if model.config.tie_embeddings and "lm_head.weight" in found.homes:
        _same_as_embedding(found, folder)


def _compare_names(ours: set[str], theirs: set[str], folder: Path, tied: bool) -> None:
    missing = sorted(ours - theirs)
    if missing:
        raise UserError(f"{folder}: tensor {missing[0]} is missing ({len(missing)} of {len(ours)} are); "
                        "config.json and the weights are not of the same model, or a file is incomplete")
    allowed = {"lm_head.weight"} if tied else set()
    extra = sorted(name for name in theirs - ours - allowed if not name.endswith(IGNORED))
    if extra:
        raise UserError(f"{folder}: tensor {extra[0]} has no place in the model of config.json ({len(extra)} such); "
                        "config.json and the weights are not of the same model")


def _same_as_embedding(found: "_Index", folder: Path) -> None:
    pair = dict(found.tensors({"lm_head.weight", "model.embed_tokens.weight"}))
    if not torch.equal(*pair.values()):
        raise UserError(f"{folder / 'config.json'}: tie_word_embeddings is true, but the weights hold a "
                        "lm_head.weight of their own; set it to false")


class _Index:
    """Which file holds which tensor, with its shape; values are read only when asked for."""

    def __init__(self, folder: Path) -> None:
        self.homes: dict[str, Path] = {}
        self._shapes: dict[str, list[int]] = {}
        promised = _promised(folder)
        for path in sorted(set(promised.values())):
            self._scan(path, promised)
        for name, path in promised.items():
            if name and self.homes.get(name) != path:
                raise UserError(f"{path}: tensor {name} is not in it, though {INDEX} says so; download the file again")

    def _scan(self, path: Path, promised: dict[str, Path]) -> None:
        with _opened(path) as file:
            for name in file.keys():
                if promised.get(name, path) != path:
                    continue                                    # the index names another file for this tensor
                part = file.get_slice(name)
                if part.get_dtype() not in FLOATS:
                    raise UserError(f"{path}: tensor {name} is stored as {part.get_dtype()}; "
                                    f"{', '.join(FLOATS)} are served")
                self.homes[name], self._shapes[name] = path, list(part.get_shape())

    def check(self, name: str, expected: list[int]) -> None:
        """Raise UserError unless the tensor has this shape."""
        if self._shapes[name] != expected:
            raise UserError(f"{self.homes[name]}: tensor {name} has shape {self._shapes[name]}, "
                            f"but config.json asks for {expected}")

    def tensors(self, names: set[str]) -> Iterator[tuple[str, Tensor]]:
        """The named tensors, file after file."""
        for path in sorted({self.homes[name] for name in names}):
            with _opened(path) as file:
                for name in sorted(names):
                    if self.homes[name] == path:
                        yield name, file.get_tensor(name)


def _promised(folder: Path) -> dict[str, Path]:
    """Tensor name to file as the index says; one nameless entry when there is a single file and no index."""
    if (folder / WEIGHTS).is_file():
        return {"": folder / WEIGHTS}
    if not (folder / INDEX).is_file():
        old = sorted(path.name for path in folder.glob("*.bin"))
        hint = f"; {old[0]} is of the older format, convert it to safetensors" if old else ""
        raise UserError(f"{folder} holds neither {WEIGHTS} nor {INDEX}{hint}")
    homes = read_json(folder / INDEX).get("weight_map")
    if not isinstance(homes, dict) or not homes:
        raise UserError(f"{folder / INDEX}: weight_map is missing or empty; download the file again")
    files = sorted(set(map(str, homes.values())))
    absent = [name for name in files if not (folder / name).is_file()]
    if absent:
        raise UserError(f"{folder}: {absent[0]} is missing ({len(absent)} of {len(files)} files are); "
                        "the download is not complete")
    return {name: folder / str(file) for name, file in homes.items()}


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        with path.open("rb") as file:
            pointer = file.read(20).startswith(b"version https://git")
        why = "it is only a git-lfs pointer, fetch the file itself" if pointer else f"{error}; download the file again"
        raise UserError(f"{path} ({path.stat().st_size} bytes) is not a whole safetensors file: {why}") from error
