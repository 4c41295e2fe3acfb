"""A pytest plugin beside nbval: writes what became of every cell to a JSON file, and notices a dead kernel at
once.

nbval waits for the whole cell timeout (2,000 s) when a kernel has died, and marks the cells after a timeout
as expected to fail, which turns a passing check into XPASS. Here death is seen within half a second and every
cell is judged by itself.

    pytest -p nbval.plugin -p llmcourse.grading.nbval_plugin --nbval-lax --course-json cells.json lab.ipynb

Used by `llmcourse check`, every lab.
"""

import json
import re
import time
from collections.abc import Generator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell

ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
POLL = 0.5  # seconds between two looks at whether the kernel lives
KEPT = 20_000  # characters of a cell's output that are kept
VERDICT = re.compile(r"PASS \S+ · \w+:")  # what a check prints when it passes, kept however much is printed around it
_cells: list[dict[str, Any]] = []


class KernelDied(Exception):
    """The kernel's process ended while it ran a cell."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The one option: where the outcomes go."""
    parser.addoption("--course-json", default=None, help="write what became of every cell to this file")


def pytest_configure(config: pytest.Config) -> None:
    """Make nbval look whether its kernel lives while it waits."""
    _cells.clear()
    RunningKernel.await_reply = _await_reply


def _await_reply(self: RunningKernel, msg_id: str, timeout: float | None = None) -> None:
    """Wait for the reply to `msg_id`; Empty after `timeout` seconds, KernelDied when nobody is left to send one."""
    deadline = time.monotonic() + (timeout if timeout is not None else 1e9)
    while time.monotonic() < deadline:
        try:
            message = self.get_message(stream="shell", timeout=min(POLL, deadline - time.monotonic()))
        except Empty:
            if not self.is_alive():
                raise KernelDied("the process ended while it ran this cell") from None
            continue
        if message["parent_header"].get("msg_id") == msg_id:
            return
    raise Empty


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Judge each cell by itself, whatever an earlier one did."""
    if isinstance(item, IPyNbCell):
        item.parent.timed_out = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Generator[None, Any, Any]:
    """Keep the outcome of each cell."""
    report = yield
    if isinstance(item, IPyNbCell) and (report.when == "call" or report.failed):
        _cells.append(_outcome(item, call, report))
    return report


def _outcome(item: IPyNbCell, call: pytest.CallInfo, report: pytest.TestReport) -> dict[str, Any]:
    outputs = item.test_outputs or []
    error = next((out for out in outputs if out["output_type"] == "error"), None)
    raised = call.excinfo
    kind, message = ("", "") if raised is None else (type(raised.value).__name__, str(raised.value))
    if error is not None and not message.startswith("Timeout"):
        kind, message = error["ename"], error["evalue"]
    elif message.startswith("Timeout"):
        kind = "Timeout"
    return {
        "id": item.cell.get("id", ""),
        "course": dict(item.cell.metadata.get("course", {})),
        "passed": report.passed,
        "kind": kind,
        "message": ANSI.sub("", message)[:KEPT],
        "stdout": _printed("".join(out["text"] for out in outputs if out["output_type"] == "stream")),
        "seconds": round(call.duration, 3),
        "kernel_lives": item.parent.kernel is not None and item.parent.kernel.is_alive(),
    }


def _printed(text: str) -> str:
    """The beginning of what was printed, and every verdict that stands behind it."""
    if len(text) <= KEPT:
        return text
    return "\n".join([text[:KEPT], *VERDICT.findall(text)[:KEPT]])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the outcomes."""
    path = session.config.getoption("--course-json")
    if path:
        Path(path).write_text(json.dumps(_cells, indent=1), encoding="utf-8")
