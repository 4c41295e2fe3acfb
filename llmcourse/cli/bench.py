"""`llmcourse bench NAME`: the measurements in `benchmarks/`, one file each with a `main(argv) -> int`.

A benchmark opens by saying what it measures; its first line is what the list here shows. Week 3 opens this room.
"""

import ast
import difflib
import importlib
import sys

from llmcourse.errors import UserError
from llmcourse.paths import ROOT

FOLDER = ROOT / "benchmarks"


def benchmarks() -> dict[str, str]:
    """Name of each benchmark to the first line of its docstring; nothing is imported."""
    found = {}
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = text.partition("\n")[0]
    return found


def usage(found: dict[str, str]) -> str:
    """The list of benchmarks as text."""
    rows = [f"  {name:<12}{text}" for name, text in found.items()] or ["  (none yet)"]
    return "\n".join(["usage: llmcourse bench NAME ...", "", "benchmarks:", *rows])


def main(argv: list[str]) -> int:
    """Run the named benchmark with the arguments that follow its name."""
    found = benchmarks()
    name, *rest = argv or ["--help"]
    if name in ("--help", "-h"):
        print(usage(found))
        return 0
    if name not in found:
        near = difflib.get_close_matches(name, found) or list(found) or ["none yet"]
        raise UserError(f"no benchmark {name!r}; there is {', '.join(near)}")
    sys.path.insert(0, str(ROOT))
    return importlib.import_module(f"benchmarks.{name}").main(rest) or 0
