"""A trained predictor on disk: train once, keep it, and predict elsewhere with the same bits.

A file is `safetensors`, as models are: the arrays that `fit` has found, and before them one text, JSON, with the
version of the format, the class, what it was made with, the words it knows, and its measured cost, which is that of the
machine where `timed` ran; a checksum covers both. Nothing in it is executed: the class is looked up in a list, and each
array is compared by name, kind and shape with what belongs there before it is used. A probe and an encoder keep the
name of the model they read, and a checksum of its weights, for on another model they would guess without a murmur.

Kept is what has learnt something, a `Constant` too. An `Oracle` was told, and its file would be the answers themselves;
`LengthData` keeps those. A `Noisy` is made for a study, in one line around the predictor that is kept. Week 9.
"""

from __future__ import annotations

import json
import math
import numbers
import os
from collections.abc import Mapping
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from llmcourse.errors import UserError
from llmcourse.kinds import check_options, fits, options_of
from llmcourse.predict.predictor import Predictor

VERSION = 1
KINDS = ("Constant", "Ridge", "MLP", "BucketClassifier", "Ordinal", "PairwiseRanker", "ListMLE", "Probe", "Encoder")
READS = {"Probe": "model", "Encoder": "name_or_folder"}    # the setting that names the model they read
FLOATS = {"F32": np.float32, "F64": np.float64}
HEADER = "llmcourse.predictor"


def save_predictor(predictor: Predictor, path: str | Path) -> None:
    """Write one file; one already there is replaced only once the new one is whole.

    Raises UserError for a predictor that has not been fitted, has learnt what is no number, or is not of `KINDS`, and
    when the file cannot be written.
    """
    path, kind = Path(path), type(predictor).__name__
    if kind not in KINDS or type(predictor) is not _class(kind):
        raise UserError(f"{kind} cannot be kept in a file; {', '.join(KINDS)} can, as they are in llmcourse.predict")
    settings, learned = predictor.settings(), predictor.learned()
    check_options(f"{kind} cannot be kept", kind, options_of(type(predictor)), settings)
    arrays = {name: np.array(each, order="C") for name, each in learned.items() if isinstance(each, np.ndarray)}
    wild = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if wild:
        raise UserError(f"{predictor.name} has learnt {wild[0]} with NaN or infinity in it, which is not worth keeping;"
                        " train again, with a smaller rate")
    header = json.dumps({"version": VERSION, "kind": kind, "settings": settings,
                         "seconds_per_request": predictor.seconds_per_request,
                         "facts": {name: each for name, each in learned.items() if name not in arrays}},
                        allow_nan=False, default=_plain)
    _write(path, save(arrays, {HEADER: f"{checksum(header, arrays)} {header}"}))


def checksum(header: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Of all that a file holds: the JSON, and each array with its name, kind and shape."""
    digest = sha256(header.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def load_predictor(path: str | Path, model: str | Path | None = None) -> Predictor:
    """The predictor of a file that `save_predictor` wrote, which predicts the same to the last bit.

    ``model``: where the model that a probe or an encoder reads lies now, if not where it lay. Raises UserError, in one
    line with the file, for whatever is not a whole and sound predictor of this version.
    """
    found = Found(Path(path))
    kind, settings = found.kind, found.settings
    if model is not None:
        if kind not in READS:
            raise UserError(f"{path} holds a {kind}, which reads no model; leave out model={str(model)!r}")
        settings = settings | {READS[kind]: str(model)}
    made: Any = _class(kind)
    check_options(str(path), kind, options_of(made), settings)
    try:
        predictor: Predictor = made(**settings)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    predictor.restore(found)
    found.is_empty()
    predictor.seconds_per_request = found.seconds_per_request
    return predictor


class Found:
    """What a file holds, handed out by name to the predictor it belongs to; UserError for what does not fit."""

    kind: str
    settings: dict[str, Any]                               # what its constructor takes
    facts: dict[str, Any]                                  # what it has learnt that is no array
    seconds_per_request: float | None

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"{path} is {'a folder' if path.is_dir() else 'not there'}; give a file that "
                            "save_predictor(predictor, path) wrote")
        self.path = path
        try:
            with safe_open(path, framework="np") as file:
                promised, _, header = (file.metadata() or {}).get(HEADER, "").partition(" ")
                self._read_header(header)
                stored = {name: file.get_slice(name).get_dtype() for name in file.keys()}
                other = [name for name, dtype in stored.items() if dtype not in FLOATS]
                if other:
                    raise self.wrong(f"{other[0]} is stored as {stored[other[0]]}, not as {' or '.join(FLOATS)}")
                self.arrays = {name: np.array(file.get_tensor(name)) for name in stored}
                if promised != checksum(header, self.arrays):
                    raise UserError(f"{path} is damaged: what it holds does not have its checksum; copy it again")
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} ({path.stat().st_size} bytes) is not a whole safetensors file: {error}; copy it "
                            "again, or fit and save the predictor again") from error

    def array(self, name: str, shape: tuple[int | None, ...], dtype: type = np.float64,
              above: float = -math.inf) -> np.ndarray:
        """An array of this shape (None: any size) and kind, all of it finite and larger than ``above``."""
        if name not in self.arrays:
            raise self.wrong(f"{name} is missing")
        array = self.arrays.pop(name)
        if len(array.shape) != len(shape) or any(want not in (None, got) for want, got in
                                                 zip(shape, array.shape, strict=True)):
            wanted = ["any" if size is None else size for size in shape]
            raise self.wrong(f"{name} has shape {list(array.shape)} where its {self.kind} has {wanted}")
        if array.dtype != dtype:
            raise self.wrong(f"{name} is {array.dtype} where its {self.kind} has {np.dtype(dtype)}")
        if not np.isfinite(array).all():
            raise self.wrong(f"{name} has NaN or infinity in it")
        if not (array > above).all():
            raise self.wrong(f"{name} has {array.min():g} in it, and must be above {above:g}")
        return array

    def words(self, name: str) -> list[str]:
        """A list of words, no two of them alike."""
        said = self.facts.pop(name, None)
        if not isinstance(said, list) or not all(isinstance(word, str) for word in said) or len(set(said)) < len(said):
            raise self.wrong(f"{name} is missing, or no list of different words")
        return said

    def same(self, name: str, here: Any, otherwise: str) -> None:
        """UserError, ending with what is ``otherwise``, unless the file says the same as what is true ``here``."""
        if self.facts.pop(name, None) != here:
            raise UserError(f"{self.path}: {otherwise}")

    def is_empty(self) -> None:
        """UserError for what nobody has asked for: then it is not the predictor's own."""
        left = [*self.arrays, *self.facts]
        if left:
            raise self.wrong(f"{left[0]} has no place in a {self.kind}")

    def wrong(self, what: str) -> UserError:
        """An error about the file, ready to raise."""
        return UserError(f"{self.path}: {' '.join(what.split())}; fit the predictor again and save it with "
                         "save_predictor")

    def _read_header(self, text: str) -> None:
        if not text:
            raise UserError(f"{self.path} holds tensors and no predictor; give a file that save_predictor wrote "
                            "(load_model reads models)")
        header: Any = None
        try:
            header = json.loads(text, parse_constant=_no_number)
        except (ValueError, RecursionError):
            pass
        if not isinstance(header, dict):
            raise self.wrong("its header is no JSON object")
        if header.get("version") != VERSION:
            raise self.wrong(f"it is of version {header.get('version')!r:.20}, and this course reads version {VERSION}")
        lacking = [name for name in ("kind", "settings", "facts", "seconds_per_request") if name not in header]
        if lacking:
            raise self.wrong(f"its header lacks {lacking[0]}")
        self.kind, self.settings, self.facts = header["kind"], header["settings"], header["facts"]
        if self.kind not in KINDS:
            raise self.wrong(f"its kind is {self.kind!r:.40}, and there are {', '.join(KINDS)}")
        if not isinstance(self.settings, dict) or not isinstance(self.facts, dict):
            raise self.wrong("its settings or facts are no JSON object")
        cost = self.seconds_per_request = header["seconds_per_request"]
        if cost is not None and not (fits(cost, float) and 0 <= cost < math.inf):
            raise self.wrong(f"seconds_per_request is {cost!r:.20}, neither a time nor null")


def _class(kind: str) -> type[Predictor]:
    made: type[Predictor] = getattr(import_module("llmcourse.predict"), kind)
    return made


def _plain(value: Any) -> int | float:
    """Numbers of numpy as JSON writes them."""
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _write(path: Path, data: bytes) -> None:
    """Beside the old file first; whatever fails, that one is as it was."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the file to write, such as {path / 'predictor.safetensors'}")
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another folder or make room there") from error
