"""A choice with options, as it is typed: ``round-robin:quantum=32``, ``kv:least=10,most=8``.

What may be set, and to what, is read from the signature of whatever is chosen. So a slip is refused before anything
runs, in a line that names what there is, and no option is taken for something that it does not mean. Weeks 3-10.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from llmcourse.errors import UserError
from llmcourse.kinds import check_options, options_of

Made = TypeVar("Made")


def chosen(flag: str, text: str, makers: Mapping[str, Callable[..., Made]], kind: str) -> Made:
    """What ``text`` names among ``makers``, made with the options behind its colon; UserError for anything else.

    ``kind`` says in a message what was looked for: "policy".
    """
    name, _, rest = text.partition(":")
    if name not in makers:
        raise UserError(f"no {kind} {name!r}; there are {', '.join(makers)}")
    options = _read(flag, text, rest)
    check_options(f"{flag} {text}", name, options_of(makers[name]), options)
    return makers[name](**options)


def _read(flag: str, text: str, rest: str) -> dict[str, Any]:
    """The options as Python reads keyword arguments; a bare word is a word, ``inf`` a number."""
    try:
        call = ast.parse(f"_({rest})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        call = None
    words = call.keywords if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args else None
    if words is None or len({each.arg for each in words} - {None}) < len(words):
        raise UserError(f"{flag} {text}: write name:option=value,option=value, each option once")
    return {str(each.arg): _value(each.value) for each in words}


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        word = ast.unparse(node)
        return float(word) if word in ("inf", "-inf") else word
