"""`llmcourse doctor`: what this machine can run, what is missing, how to get it.

Each check looks at one thing without starting it and says found or missing, and for what is missing how to get it.
Only what the labs cannot do without is required: those decide the exit code. Every week.
"""

import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

from llmcourse.cli.parser import Parser
from llmcourse.cli.threads import cores, threads
from llmcourse.paths import DATA, ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FREE_GIB_WANTED = 3


@dataclass(frozen=True)
class Finding:
    """One line of the report; `get` says how to get what is missing ("" when nothing is)."""

    name: str
    found: bool
    required: bool
    detail: str
    get: str = ""


def version(package: str) -> str | None:
    """Installed version of a package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def package(name: str, title: str, get: str, required: bool = False) -> Finding:
    """Is a Python package installed?"""
    found = version(name)
    return Finding(title, found is not None, required, found or "not installed", "" if found else get)


def program(names: tuple[str, ...], title: str, why: str, get: str) -> Finding:
    """Is one of these programs on the PATH?"""
    path = next(filter(None, map(shutil.which, names)), None)
    return Finding(title, path is not None, False, path or f"not on the PATH; {why}", "" if path else get)


def python() -> Finding:
    """The interpreter that runs this."""
    found = sys.version_info >= (3, 11)
    detail = f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}"
    return Finding("Python", found, True, detail, "" if found else "install Python 3.11 or newer")


def torch_build() -> Finding:
    """PyTorch, without importing it."""
    return package("torch", "PyTorch", "make lab", required=True)


def cuda() -> Finding:
    """A GPU that PyTorch can use; the one check that imports torch."""
    get = "optional; on a machine with an NVIDIA GPU: rm -rf .venv && make lab TORCH=cuda"
    try:
        import torch
    except ImportError:
        return Finding("CUDA", False, False, "PyTorch is missing", get)
    if not torch.cuda.is_available():
        return Finding("CUDA", False, False, "no GPU that this PyTorch can use; everything runs on the CPU", get)
    name, memory = torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory
    return Finding("CUDA", True, False, f"{name}, {memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")


def thread_count() -> Finding:
    """Threads that notebooks get."""
    return Finding("threads", True, False, f"{threads()} for a notebook, of {cores()} cores")


def disk() -> Finding:
    """Free space beside the course."""
    free = shutil.disk_usage(ROOT).free / 2**30
    found = free >= FREE_GIB_WANTED
    get = "" if found else f"free {FREE_GIB_WANTED} GiB: the environment takes about 2"
    return Finding("disk", found, False, f"{free:.1f} GiB free", get)


def course_tiny() -> Finding:
    """The model that ships with the course."""
    weights = DATA / "course-tiny" / "model.safetensors"
    if not weights.is_file():
        return Finding("course-tiny", False, True, "data/course-tiny/model.safetensors is not there",
                       "git checkout -- data/course-tiny, or llmcourse train")
    return Finding("course-tiny", True, True, f"{weights.stat().st_size / 1e6:.1f} MB")


CHECKS: tuple[Callable[[], Finding], ...] = (
    python,
    torch_build,
    lambda: package("jupyterlab", "JupyterLab", "make lab", required=True),
    lambda: package("nbval", "nbval", "make lab", required=True),
    course_tiny,
    thread_count,
    disk,
    cuda,
    lambda: package("voila", "Voilà", "make lab (llmcourse demo needs it)"),
    lambda: program(BROWSERS, "Chromium", "the browser tests drive it", "apt-get install chromium"),
    lambda: program(("bwrap",), "bubblewrap", "for the class grader, which is planned", "apt-get install bubblewrap"),
    lambda: package("ray", "Ray", "optional, for clusters of processes: "
                    ".venv/bin/pip install -c constraints.txt -e '.[ray]'"),
)


def line(finding: Finding, width: int) -> str:
    """One finding as text: words first, so that nothing hangs on colour."""
    state = "found" if finding.found else "MISSING" if finding.required else "missing"
    get = f"\n{'':{width + 11}}get it: {finding.get}" if finding.get else ""
    return f"{finding.name:<{width}}  {state:<7}  {finding.detail}{get}"


def report(findings: list[Finding]) -> str:
    """The whole table and a closing sentence."""
    width = max(len(finding.name) for finding in findings)
    lacking = [finding.name for finding in findings if finding.required and not finding.found]
    end = f"required and missing: {', '.join(lacking)}" if lacking else "everything required is here"
    return "\n".join([*(line(finding, width) for finding in findings), "", end])


def main(argv: list[str]) -> int:
    """Print what was found; 0 unless something required is missing (then 1)."""
    parser = Parser(prog="llmcourse doctor", description="What this machine can run.")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    options = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads()))
    findings = [check() for check in CHECKS]
    ready = all(finding.found for finding in findings if finding.required)
    if options.json:
        print(json.dumps({"ready": ready, "findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        print(report(findings))
    return 0 if ready else 1
