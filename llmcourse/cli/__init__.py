"""The `llmcourse` command: one table of commands, each loaded when it is called.

A command is a function `main(argv) -> int`. Nothing but the table is read for `--help`, so the answer is there at
once; what a command needs (torch, plotly, a notebook kernel) loads when that command runs. Bad input ends in one
line and exit code 2, Ctrl-C in 130. Every week uses it; week 2 opens it.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from llmcourse import __version__
from llmcourse.errors import UserError

COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": ("llmcourse.cli.doctor:main", "what this machine can run, what is missing, how to get it"),
    "lab": ("llmcourse.cli.lab:main", "JupyterLab at the course's home page"),
    "demo": ("llmcourse.cli.demo:main", "the lecture demo of a week as a full-screen page"),
    "run": ("llmcourse.cli.run:main", "execute notebooks without a browser and time each"),
    "check": ("llmcourse.cli.check:main", "self-check of a lab notebook"),
    "generate": ("llmcourse.cli.generate:main", "text from a model, token by token"),
    "train": ("llmcourse.model.training.command:train", "train course-tiny from generated text"),
    "sim": ("llmcourse.cli.sim:main", "serve a workload with any model on any GPU, in virtual time"),
    "data": ("llmcourse.cli.data:main", "workload data: what ships, original traces by URL, checksums"),
    "bench": ("llmcourse.cli.bench:main", "measurements, beside a peer where there is one"),
}


def usage() -> str:
    """The help text: how to call the command, and the table."""
    rows = [f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items()]
    head = ["usage: llmcourse COMMAND ...", "", "commands:"]
    return "\n".join([*head, *rows, "", "'llmcourse COMMAND --help' says more about one of them."])


def unknown(name: str) -> str:
    """One line for a command that does not exist, naming the ones that look like it."""
    close = difflib.get_close_matches(name, COMMANDS)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(COMMANDS)}."
    return f"llmcourse: no command {name!r}; {hint}"


def call(name: str, argv: list[str]) -> int:
    """Load the command's module and run it on `argv` (without the command's own name)."""
    module, function = COMMANDS[name][0].split(":")
    return getattr(importlib.import_module(module), function)(argv) or 0


def fail(message: str) -> int:
    """Print one line to stderr; the exit code of bad input."""
    print(" ".join(message.split()), file=sys.stderr)
    return 2


def hang_up() -> int:
    """Exit code when the reader of our output has gone (`llmcourse ... | head`): say nothing more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def dispatch(argv: list[str]) -> int:
    """Answer for the command itself, or call the one that is named."""
    name, *rest = argv or ["--help"]
    if name in ("--help", "-h", "help"):
        print(usage())
        return 0
    if name in ("--version", "-V"):
        print(f"llmcourse {__version__}")
        return 0
    if name not in COMMANDS:
        return fail(unknown(name))
    try:
        return call(name, rest)
    except UserError as error:
        return fail(f"llmcourse {name}: {error}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `llmcourse COMMAND ...` and return its exit code."""
    try:
        code = dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return hang_up()
