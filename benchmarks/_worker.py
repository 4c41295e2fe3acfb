"""A peer in an environment of its own: a process that loads the same weights and answers on its standard output.

One line of JSON in, one out, so that its runs can take turns with ours. Between runs it waits and uses no processor.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from benchmarks._shapes import CONTEXT, Job

HERE = Path(__file__).parent


class Worker:
    """``script`` run by ``python`` on the model in ``folder``. RuntimeError, with what it last said, when it dies."""

    def __init__(self, name: str, python: str, script: str, folder: Path, threads: int) -> None:
        self.name = name
        self.errors = (folder / f"{script}.log").open("w+", encoding="utf-8")
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": ""}
        self.process = subprocess.Popen([python, str(HERE / script), str(folder), str(threads)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        env=environment)
        self.version = self._read()["version"]

    def mixed(self, jobs: list[Job]) -> float:
        """Seconds from the first prompt to the last token, by the worker's own clock."""
        return float(self._ask({"jobs": [[job.prompt, job.output] for job in jobs]})["seconds"])

    def step(self, batch: int, steps: int) -> float:
        """Seconds of a decode step around `CONTEXT` tokens, as the worker's script measures it."""
        return float(self._ask({"batch": batch, "context": CONTEXT, "steps": steps})["seconds"])

    def answers(self, jobs: list[Job]) -> tuple[list[list[int]], list[list[float]]]:
        """Of each job prompt and answer, and the logits of the last token: for workers that can show them."""
        found = self._ask({"answer": [[job.prompt, job.output] for job in jobs]})
        return found["tokens"], found["logits"]

    def close(self) -> None:
        """Let the process end."""
        if self.process.stdin:
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):                         # libraries print what they like before it
                return dict(json.loads(line))
        self.errors.seek(0)
        raise RuntimeError(f"{self.name} ended: {self.errors.read()[-600:].strip()}")
