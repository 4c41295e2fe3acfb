"""From a name to a model ready to serve: course-tiny, a folder in Hugging Face's format, or a name on the hub.

A folder holds `config.json` (the shape), `*.safetensors` (the weights) and usually `tokenizer.json`. The shape is read
first, the weights are compared with it by name and size, and only then read: whatever does not fit is refused in one
line. Nothing in a folder is executed. Week 1; the wait this causes on a cold start is a theme of weeks 10 and 12.
"""

import json
from pathlib import Path
from typing import Any

import torch

from llmcourse.errors import UserError
from llmcourse.model.hf_config import hf_config, read_config, read_json
from llmcourse.model.hf_weights import read_weights, write_weights
from llmcourse.model.tokenizer import Tokenizer
from llmcourse.model.transformer import Transformer
from llmcourse.paths import DATA

COURSE_TINY = "course-tiny"
HUB_FILES = ["config.json", "generation_config.json", "tokenizer.json", "*.safetensors", "*.safetensors.index.json"]


def load_model(name_or_folder: str | Path, device: str = "auto",
               dtype: torch.dtype = torch.float32) -> tuple[Transformer, Tokenizer | None]:
    """Load a model and its tokenizer (None when the folder has no `tokenizer.json`).

    ``device`` is ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ... The weights are held in ``dtype``
    whatever the file stores. They ask for no gradients; a training loop turns them on with ``model.requires_grad_()``.
    Raises UserError, in one line with file and field, for whatever cannot be loaded.
    """
    place = resolve_device(device)
    folder = find_folder(name_or_folder)
    model = Transformer(read_config(folder / "config.json"), seed=None)
    read_weights(model, folder, place, dtype)
    model.frequencies = model.frequencies.to(place)             # stays float32: positions need the precision
    return model.eval().requires_grad_(False), _read_tokenizer(folder)


def save_model(model: Transformer, folder: str | Path, tokenizer: Tokenizer | None = None,
               dtype: torch.dtype | None = None) -> None:
    """Write a folder that `load_model` and `transformers` read; ``dtype`` stores the weights in another precision.

    Raises UserError for a shape that no Hugging Face family has.
    """
    folder = Path(folder)
    fields = hf_config(model.config) | {"dtype": str(dtype or model.embedding.dtype).removeprefix("torch.")}
    if tokenizer is not None:
        fields["eos_token_id"] = sorted(tokenizer.eos_ids)
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(model, folder, dtype)
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save(folder)


def resolve_device(device: str) -> torch.device:
    """The device of a name; ``"auto"`` is a GPU if there is one. Raises UserError when it is not on this machine."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r} cannot be used here ({str(error).splitlines()[0]}); "
                        "'cpu' always works, 'auto' takes a GPU if there is one") from error
    return place


def find_folder(name_or_folder: str | Path) -> Path:
    """The folder of a model: course-tiny's, one on this disk, or one fetched from the hub by ``owner/name``."""
    if str(name_or_folder) == COURSE_TINY:
        return _course_tiny()
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"{folder} is a file; give the folder that holds config.json and the weights")
    name = str(name_or_folder)
    if name.count("/") == 1 and name[0] not in "./~" and not name.endswith("/"):
        return _fetch(name)
    raise UserError(f"there is no model {name!r}: give '{COURSE_TINY}', a folder, or 'owner/name' on the "
                    "Hugging Face hub")


def _course_tiny() -> Path:
    folder = DATA / COURSE_TINY
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} does not hold the course's model; restore the checkout, "
                        "or train it: llmcourse train")
    return folder


def _fetch(name: str) -> Path:
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(f"there is no folder {name!r}, and fetching it from the hub needs huggingface_hub: "
                        "pip install huggingface_hub") from None
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=HUB_FILES))
    except Exception as error:                                  # a dozen kinds: no network, no such name, gated, ...
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"there is no folder {name!r}, and the hub did not give it ({reason}); "
                        "check the name and the network, or give a local folder") from error


def _read_tokenizer(folder: Path) -> Tokenizer | None:
    if not (folder / "tokenizer.json").is_file():
        return None
    try:
        return Tokenizer.load(folder, _eos_ids(folder))
    except ValueError as error:
        raise UserError(f"{error}; download the file again") from error


def _eos_ids(folder: Path) -> list[int]:
    """Tokens that end a text: `generation_config.json` has the last word, `config.json` the first."""
    for name in ("generation_config.json", "config.json"):
        value: Any = read_json(folder / name).get("eos_token_id") if (folder / name).is_file() else None
        ids = [value] if isinstance(value, int) else value
        if isinstance(ids, list) and all(isinstance(index, int) for index in ids) and ids:
            return ids
        if value not in (None, []):
            raise UserError(f"{folder / name}: eos_token_id is {json.dumps(value)}; "
                            "it must be a token id or a list of them")
    return []
