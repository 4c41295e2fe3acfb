"""Runs a notebook under nbval in a process and a folder of its own, and says what became of each cell.

Nothing beside the notebook takes part: no conftest.py, no pytest settings, no IPython profile of the
student's. The run ends by itself after a time limit, and its output goes to a file, so that no orphan that
keeps a pipe open can hold us up.

Used by `llmcourse check`, every lab.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmcourse.errors import UserError

KERNEL_START = 60.0  # seconds that starting pytest and the kernel may take on a busy machine


@dataclass(frozen=True)
class Outcome:
    """What became of one code cell. `kind` is the name of what was raised, "Timeout", "KernelDied", or "".

    `lives` says whether the kernel was alive afterwards; `course` is the cell's course metadata.
    """

    id: str
    course: dict[str, Any]
    passed: bool
    kind: str
    message: str
    stdout: str
    seconds: float
    lives: bool


def run_nbval(notebook: dict[str, Any], name: str, timeout: float) -> list[Outcome]:
    """Outcome of every code cell of `notebook`, up to the one that killed its kernel; `timeout` seconds for a
    cell.

    UserError when pytest itself fails, with the end of what it said.
    """
    cells = sum(cell["cell_type"] == "code" for cell in notebook["cells"])
    with tempfile.TemporaryDirectory(prefix="llmcourse-check-") as folder:
        home = Path(folder)
        (home / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
        (home / "pytest.ini").write_text("[pytest]\n")
        log = home / "log.txt"
        _run(_command(home, name, timeout), home, log, KERNEL_START + cells * (timeout + 10))
        written = home / "cells.json"
        if not written.is_file():
            raise UserError(f"{name} could not be run under nbval: {log.read_text(errors='replace')[-600:].strip()}")
        return [_outcome(record) for record in json.loads(written.read_text(encoding="utf-8"))]


def _command(home: Path, name: str, timeout: float) -> list[str]:
    plugins = ["-p", "nbval.plugin", "-p", "llmcourse.grading.nbval_plugin", "-p", "no:cacheprovider"]
    nbval = ["--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={timeout}"]
    place = ["-c", str(home / "pytest.ini"), "--rootdir", str(home), "--noconftest", "-q", "--tb=no"]
    return [
        *(sys.executable, "-m", "pytest", *plugins, *nbval, *place),
        *("--course-json", str(home / "cells.json"), str(home / f"{name}.ipynb")),
    ]


def _environment(home: Path) -> dict[str, str]:
    dropped = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    return environment | {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "IPYTHONDIR": str(home / "ipython"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "OMP_NUM_THREADS": environment.get("OMP_NUM_THREADS", "1"),
    }


def _run(command: list[str], home: Path, log: Path, limit: float) -> None:
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=home,
            env=_environment(home),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(timeout=limit)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _outcome(record: dict[str, Any]) -> Outcome:
    return Outcome(lives=record.pop("kernel_lives"), **record)
