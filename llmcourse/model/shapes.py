"""Shapes of published models, from a table: enough to compute with, without a single weight.

How many bytes a model takes, what a token leaves in its cache, which limit its steps meet: all follow from a dozen
numbers. `data/models.json` holds them with their sources. OPT and GPT-3 are older in kind (two matrices in the
feed-forward network instead of three, learned positions), so for them the table also states the number of parameters.
No torch. Week 2.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from llmcourse.errors import UserError
from llmcourse.model.config import ModelConfig, RopeScaling
from llmcourse.paths import DATA


@dataclass(frozen=True)
class PublishedShape(ModelConfig):
    """A `ModelConfig` with a name and a source; ``parameters``, where given, is the count to believe."""

    name: str = ""
    source: str = ""
    parameters: int | None = None

    @property
    def num_parameters(self) -> int:
        """How many values the weights hold."""
        return super().num_parameters if self.parameters is None else self.parameters


def read_shapes(path: Path) -> dict[str, PublishedShape]:
    """Name to shape, in the order of the table."""
    rows = json.loads(path.read_text(encoding="utf-8"))["models"]
    return {row["name"]: _shape(row) for row in rows}


def _shape(row: dict[str, Any]) -> PublishedShape:
    scaling = row.get("rope_scaling")
    return PublishedShape(**row | {"rope_scaling": scaling and RopeScaling(**scaling)})


@cache
def _table() -> dict[str, PublishedShape]:
    return read_shapes(DATA / "models.json")


def shape(name: str) -> PublishedShape:
    """The shape of a published model, for example ``"Llama 3 8B"``. Raises UserError naming what there is."""
    found = {plain(known): known for known in _table()}
    if plain(name) not in found:
        raise UserError(f"no shape of a model {name!r}; there are {', '.join(_table())}")
    return _table()[found[plain(name)]]


def plain(name: str) -> str:
    """A name without case, spaces and signs: ``llama-3-8b`` is ``Llama 3 8B``."""
    return "".join(letter for letter in name.casefold() if letter.isalnum() or letter == ".")


def __getattr__(name: str) -> Any:
    """``SHAPES``: all of them by name, read on first use."""
    if name == "SHAPES":
        return dict(_table())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
