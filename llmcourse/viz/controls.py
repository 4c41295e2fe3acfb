"""The controls of a widget, as plain data: a slider over stops, a choice, a switch, a text.

A slider moves over a list of stops with ready-made labels, so that linear, logarithmic and named scales are the same
thing and the browser formats nothing. A control turns what the browser sends (an index, a word, a flag) into the value
the view receives, and refuses anything else. Used by every widget.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llmcourse.errors import UserError


class Control(Protocol):
    """A named input of a view."""

    @property
    def value(self) -> Any:
        """The value it starts with."""

    def spec(self) -> dict[str, Any]:
        """What the browser needs to draw it."""

    def decode(self, raw: Any) -> Any:
        """The value of what the browser sent.

        Raises:
            UserError: not something this control can send.
        """

    def encode(self, value: Any) -> Any:
        """What the browser shows for a value.

        Raises:
            UserError: the control has no such value.
        """


@dataclass(frozen=True)
class Slider:
    """A slider over `stops`; `unit` follows each stop's text, `labels` replaces the texts."""

    label: str
    stops: Sequence[Any]
    value: Any
    unit: str = ""
    labels: Sequence[str] | None = None

    def __post_init__(self) -> None:
        self.encode(self.value)

    def spec(self) -> dict[str, Any]:
        """Kind, label and the text of every stop."""
        texts = self.labels or [
            f"{stop:,}" if isinstance(stop, int) else f"{stop:g}" if isinstance(stop, float) else str(stop)
            for stop in self.stops
        ]
        return {
            "kind": "slider",
            "label": self.label,
            "texts": [f"{text} {self.unit}".strip() for text in texts],
        }

    def decode(self, raw: Any) -> Any:
        """The stop at an index."""
        if isinstance(raw, bool) or not isinstance(raw, int) or not 0 <= raw < len(self.stops):
            raise UserError(f"{self.label}: no stop {raw!r}; there are {len(self.stops)}, from 0")
        return self.stops[raw]

    def encode(self, value: Any) -> int:
        """The index of a stop."""
        if value not in self.stops:
            raise UserError(
                f"{self.label}: {value!r} is not a stop; {self.stops[0]} to {self.stops[-1]} are "
                f"({', '.join(map(str, list(self.stops)[:8]))}{' …' if len(self.stops) > 8 else ''})"
            )
        return list(self.stops).index(value)


@dataclass(frozen=True)
class Choice:
    """One of a few options, shown as a menu."""

    label: str
    options: Sequence[str]
    value: str

    def __post_init__(self) -> None:
        self.encode(self.value)

    def spec(self) -> dict[str, Any]:
        """Kind, label and options."""
        return {"kind": "choice", "label": self.label, "options": list(self.options)}

    def decode(self, raw: Any) -> str:
        """The option itself."""
        if raw not in self.options:
            raise UserError(f"{self.label}: {raw!r} is not an option; these are: {', '.join(self.options)}")
        return str(raw)

    encode = decode


@dataclass(frozen=True)
class Switch:
    """On or off."""

    label: str
    value: bool = False

    def spec(self) -> dict[str, Any]:
        """Kind and label."""
        return {"kind": "switch", "label": self.label}

    def decode(self, raw: Any) -> bool:
        """The flag itself."""
        if not isinstance(raw, bool):
            raise UserError(f"{self.label}: {raw!r} is neither True nor False")
        return raw

    encode = decode


@dataclass(frozen=True)
class Text:
    """A line of text, sent when Enter is pressed or the field is left."""

    label: str
    value: str = ""
    limit: int = 200

    def spec(self) -> dict[str, Any]:
        """Kind, label and the longest text in characters."""
        return {"kind": "text", "label": self.label, "limit": self.limit}

    def decode(self, raw: Any) -> str:
        """The text itself."""
        if not isinstance(raw, str) or len(raw) > self.limit:
            raise UserError(
                f"{self.label}: a text of at most {self.limit} characters is needed, got {raw!r:.80}"
            )
        return raw

    encode = decode
