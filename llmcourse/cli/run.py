"""`llmcourse run 1 2 labs/x.ipynb`: execute notebooks without a browser, each in a fresh kernel, and time them.

This is the proof that a lecture still runs from top to bottom in its time. Nothing is written: outputs stay in
memory, the kernel's history and profile live in a folder that is removed. A cell that fails ends its notebook with
one block that names the cell's key and the error. Every week.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llmcourse.cli.lab import skip_slow_grammar
from llmcourse.cli.parser import Parser
from llmcourse.cli.threads import kernel_environment
from llmcourse.course import find_week
from llmcourse.errors import UserError

if TYPE_CHECKING:
    from nbclient import NotebookClient
    from nbformat import NotebookNode

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
SLOWEST = 3
TRACEBACK_LINES = 12


@dataclass(frozen=True)
class Failure:
    """Where a notebook stopped: the cell's key, the kind of error, its message and the end of its traceback."""

    key: str
    kind: str
    message: str
    traceback: str = ""


@dataclass
class Run:
    """One notebook's run: wall time in seconds, in all and of each code cell (by key), and its failure if any."""

    notebook: str
    seconds: float = 0.0
    cells: dict[str, float] = field(default_factory=dict)
    failure: Failure | None = None

    def slowest(self) -> list[tuple[str, float]]:
        """The cells that took longest, longest first."""
        return sorted(self.cells.items(), key=lambda item: -item[1])[:SLOWEST]


def find_notebook(text: str) -> Path:
    """The notebook a person named: a week's number, or a path.

    Raises:
        UserError: there is no such week, its lecture is not written yet, or the path is not a notebook.
    """
    if text.isdecimal():
        week = find_week(text)
        if week.lecture is None:
            raise UserError(f"week {week.number} ({week.title}) has no lecture yet")
        return week.lecture
    path = Path(text)
    if not path.is_file():
        raise UserError(f"no notebook {text!r}; give a week's number or the path of an .ipynb file")
    return path


def read_notebook(path: Path) -> "NotebookNode":
    """Parse a notebook.

    Raises:
        UserError: the file is no notebook.
    """
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:
        raise UserError(f"{path} is not a notebook: {str(error).splitlines()[0]}") from error


@contextmanager
def quiet_kernel() -> Iterator[None]:
    """Kernels started inside share the cores and keep history and profile in a folder that is removed."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="llmcourse-run-", ignore_cleanup_errors=True) as folder:
        os.environ.update(kernel_environment(), IPYTHONDIR=folder, JUPYTER_RUNTIME_DIR=f"{folder}/runtime")
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def client(notebook: "NotebookNode", folder: Path, timeout: float) -> "NotebookClient":
    """A client whose kernel is this Python, whatever kernel the notebook names."""
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    class ThisPython(AsyncKernelManager):
        def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
            command = super().format_kernel_cmd(extra_arguments)
            return [sys.executable, *command[1:]]

    return NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        kernel_manager_class=ThisPython,
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
    )


def failed(key: str, error: Exception) -> Failure:
    """Turn what stopped a cell into something to read."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    if isinstance(error, CellExecutionError):
        text = ANSI.sub("", error.traceback).rpartition("Traceback (most recent call last)")[2]
        lines = [line for line in text.splitlines() if line.strip(" -")]
        return Failure(key, error.ename, ANSI.sub("", error.evalue), "\n".join(lines[-TRACEBACK_LINES:-1]))
    if isinstance(error, CellTimeoutError):
        return Failure(key, "Timeout", "the cell was still running at the limit (--timeout)")
    if isinstance(error, DeadKernelError):
        return Failure(key, "DeadKernel", "the kernel died while running this cell")
    raise error


def execute(path: Path, timeout: float) -> Run:
    """Run every code cell of a notebook in a fresh kernel; `timeout` is in seconds for each cell."""
    notebook, run, began = read_notebook(path), Run(str(path)), time.perf_counter()
    worker = client(notebook, path.resolve().parent, timeout)
    with quiet_kernel(), worker.setup_kernel(stderr=subprocess.DEVNULL):
        for number, cell in enumerate(notebook.cells):
            if cell.cell_type != "code":
                continue
            key, start = cell.get("id", str(number)), time.perf_counter()
            try:
                worker.execute_cell(cell, number)
            except Exception as error:
                run.failure = failed(key, error)
                break
            finally:
                run.cells[key] = round(time.perf_counter() - start, 3)
    run.seconds = round(time.perf_counter() - began, 3)
    return run


def describe(run: Run) -> str:
    """One notebook's outcome as text."""
    slow = ", ".join(f"{key} {seconds:.1f} s" for key, seconds in run.slowest())
    state = "FAIL" if run.failure else "ok"
    text = f"{state:<5}{run.seconds:6.1f} s  {run.notebook}  ({len(run.cells)} cells; slowest: {slow or 'none'})"
    if run.failure is None:
        return text
    failure = run.failure
    block = f"cell {failure.key}: {failure.kind}: {failure.message}\n{failure.traceback}".rstrip()
    return text + "\n" + "\n".join(f"      | {line}" for line in block.splitlines())


def main(argv: list[str]) -> int:
    """0 when every notebook ran to its end, 1 when one failed."""
    parser = Parser(prog="llmcourse run", description="Execute notebooks and time each.")
    parser.add_argument("notebook", nargs="+", help="a week's number (its lecture) or a path")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="limit for one cell (300)")
    parser.add_argument("--json", action="store_true", help="print the times as JSON")
    options = parser.parse_args(argv)
    if not options.timeout > 0:
        raise UserError(f"--timeout is a number of seconds above 0, not {options.timeout:g}")
    skip_slow_grammar()
    notebooks = [find_notebook(text) for text in options.notebook]
    runs = []
    for path in notebooks:
        runs.append(execute(path, options.timeout))
        if not options.json:
            print(describe(runs[-1]), flush=True)
    bad = sum(run.failure is not None for run in runs)
    if options.json:
        print(json.dumps([asdict(run) for run in runs], indent=1))
    else:
        print(f"{len(runs)} run, {bad} failed, {sum(run.seconds for run in runs):.1f} s in all")
    return 1 if bad else 0
