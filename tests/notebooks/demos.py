"""What a week's demo defines, had without a browser: its cells run as they stand, in its folder."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmcourse.grading.percent import read_master
from llmcourse.paths import week


@contextmanager
def demo_of(number: int, keys: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """The names that the demo's code cells leave, all of them or those with these keys."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    here = Path.cwd()
    os.chdir(week(number))
    try:
        for cell in read_master(week(number) / "demo.py"):
            if cell.kind == "code" and (not keys or cell.key in keys):
                exec(compile(cell.source, cell.key, "exec"), namespace)
        yield namespace
    finally:
        os.chdir(here)
