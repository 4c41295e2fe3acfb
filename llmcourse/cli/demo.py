"""`llmcourse demo WEEK`: the week's demo as a full-screen page for the projector.

The page is a small notebook (`weekNN/demo.ipynb`) shown by Voilà: no code, no cells, only figures and controls, each
driven by its own kernel. It is served to this machine alone and needs no network. Weeks 1-16, where a week has one.
"""

import argparse
import os
import socket
import sys
from pathlib import Path

from llmcourse.cli.parser import Parser
from llmcourse.cli.threads import kernel_environment
from llmcourse.errors import UserError
from llmcourse.paths import ROOT, week

LOOPBACK = "127.0.0.1"
FIRST_PORT = 8866
TEMPLATES = ROOT / "llmcourse" / "viz" / "share"
IDLE = ("jupyterlab-jupytext", "@voila-dashboards/jupyterlab-preview")  # need a JupyterLab around them


def notebook(number: int) -> Path:
    """The demo notebook of a week.

    Raises:
        UserError: the week has none; says which have.
    """
    path = week(number) / "demo.ipynb"
    if not path.is_file():
        found = sorted(int(one.parent.name.removeprefix("week")) for one in ROOT.glob("week*/demo.ipynb"))
        others = (
            f"weeks with a demo: {', '.join(map(str, found))}"
            if found
            else "run 'make notebooks' to build them"
        )
        raise UserError(f"week {number} has no demo page ({path.relative_to(ROOT)} is missing); {others}")
    return path


def free_port(wanted: int | None) -> int:
    """The wanted port, or the first free one from 8866 on.

    Raises:
        UserError: the wanted port is taken.
    """
    for port in [wanted] if wanted else range(FIRST_PORT, FIRST_PORT + 50):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
                return port
            except OSError:
                continue
    raise UserError(f"port {wanted or FIRST_PORT} is taken; try --port with another number")


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line, read."""
    parser = Parser(
        prog="llmcourse demo", description="Show a week's demo page, full screen."
    )
    parser.add_argument(
        "week", type=int, choices=range(1, 17), metavar="WEEK", help="number of the week, 1 to 16"
    )
    parser.add_argument(
        "--port", type=int, default=None, help=f"port to serve on (default: first free from {FIRST_PORT})"
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address and open nothing")
    return parser.parse_args(argv)


def voila_options(path: Path, port: int, browser: bool) -> list[str]:
    """Voilà's own command line: this machine only, sources hidden."""
    options = [
        str(path),
        f"--Voila.ip={LOOPBACK}",
        f"--port={port}",
        "--strip_sources=True",
        "--show_tracebacks=True",
        "--template=course",
        "--progressive_rendering=True",  # cells appear as they end, and each widget waits for its model
        "--Voila.log_level=ERROR",
    ]
    options += [f"--VoilaConfiguration.extension_denylist={name}" for name in IDLE]
    return options if browser else [*options, "--no-browser"]


def main(argv: list[str]) -> int:
    """Serve the page until stopped (Ctrl-C)."""
    options = arguments(argv)
    path = notebook(options.week)
    try:
        from voila.app import Voila
    except ImportError as error:
        raise UserError(
            f"Voilà is not in this environment ({sys.executable}); 'make lab' installs it"
        ) from error
    port = free_port(options.port)
    os.environ.update(kernel_environment())
    os.environ["JUPYTER_PATH"] = os.pathsep.join(
        filter(None, [str(TEMPLATES), os.environ.get("JUPYTER_PATH")])
    )
    print(
        f"Week {options.week}: http://{LOOPBACK}:{port}/   (Ctrl-C stops it; F11 fills the screen)",
        flush=True,
    )
    Voila.launch_instance(argv=voila_options(path, port, not options.no_browser))
    return 0
