"""`llmcourse lab`: JupyterLab at the course's home page, with the course's settings and this Python as its kernel.

The settings live in `config/jupyter`, and are added for this server only: nothing is written into a person's own
Jupyter configuration. They keep the server on this machine (no news, no update checks) and its start short.
Arguments after the command go to JupyterLab unchanged. Every week.
"""

import os
import sys

from llmcourse.cli.threads import kernel_environment
from llmcourse.errors import UserError
from llmcourse.paths import ROOT

HOME = "index.ipynb"
CONFIG = ROOT / "config" / "jupyter"
HELP = """usage: llmcourse lab [JUPYTERLAB OPTION ...]

Start JupyterLab at the course's home page. Options go to JupyterLab, for example:
  --no-browser        print the address and open nothing
  --port 8899         another port (8888 when not given, or the next one free)
  --ip 0.0.0.0        let other machines in (the address then holds a secret token: keep it)
'llmcourse lab --help-all' is JupyterLab's own list."""


def environment() -> dict[str, str]:
    """What the server needs: the course's settings first on Jupyter's path, kernels that share the cores."""
    path = os.pathsep.join(filter(None, [str(CONFIG), os.environ.get("JUPYTER_CONFIG_PATH")]))
    return {**kernel_environment(), "JUPYTER_CONFIG_PATH": path}


def given(argv: list[str], *names: str) -> bool:
    """Has the person set one of these options? JupyterLab takes each only once."""
    return any(argument.partition("=")[0] in names for argument in argv)


def arguments(argv: list[str]) -> list[str]:
    """Options of the server: the person's, and the course's where they say nothing."""
    options = []
    if not given(argv, "--ServerApp.root_dir", "--notebook-dir"):
        options.append(f"--ServerApp.root_dir={ROOT}")
    if (ROOT / HOME).is_file() and not given(argv, "--LabApp.default_url", "--ServerApp.default_url"):
        options.append(f"--LabApp.default_url=/lab/tree/{HOME}")
    if hasattr(os, "geteuid") and os.geteuid() == 0 and not given(argv, "--allow-root"):
        options.append("--allow-root")
    return [*options, *argv]


def skip_slow_grammar() -> None:
    """Keep `jsonschema` from building a grammar of web addresses at import: two seconds, for a check nobody asks for.

    The package looks for `rfc3987_syntax` and does without it when it is not there; None in `sys.modules` says so.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def main(argv: list[str]) -> int:
    """Serve until stopped (Ctrl-C); JupyterLab's own exit code."""
    if "--help" in argv or "-h" in argv:
        print(HELP)
        return 0
    skip_slow_grammar()
    try:
        from jupyterlab.labapp import LabApp
    except ImportError as error:
        raise UserError(f"JupyterLab is not in this environment ({sys.executable}); 'make lab' sets it up") from error
    os.environ.update(environment())
    return LabApp.launch_instance(arguments(argv)) or 0
