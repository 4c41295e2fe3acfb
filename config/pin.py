"""Prints the pins of everything that `pyproject.toml` asks for, directly or not, as installed in this Python.

`make pins` writes them to constraints.txt. The build of torch is not part of a pin: CPU and CUDA share a version.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def canonical(name: str) -> str:
    """The one spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def asked() -> list[str]:
    """Requirements of pyproject.toml, every extra included."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]


def needed(text: str, extra: str = "") -> Iterator[tuple[str, str]]:
    """(name, extra) pairs that a requirement brings in on this machine; nothing when its marker says no."""
    requirement = Requirement(text)
    if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
        for wanted in ("", *requirement.extras):
            yield canonical(requirement.name), wanted


def closure(requirements: list[str]) -> tuple[dict[str, str], set[str]]:
    """Versions of all that is needed, by name; and the names that are needed but not installed."""
    queue = [pair for text in requirements for pair in needed(text)]
    seen, versions, missing = set(queue), {}, set()
    while queue:
        name, extra = queue.pop()
        try:
            found = distribution(name)
        except PackageNotFoundError:
            missing.add(name)
            continue
        versions[name] = found.version.partition("+")[0]
        fresh = {pair for text in found.requires or () for pair in needed(text, extra)} - seen
        seen |= fresh
        queue.extend(fresh)
    return versions, missing


def main() -> int:
    """Print the pins, sorted; 1 when something is not installed."""
    versions, missing = closure(asked())
    if missing:
        print(f"not installed, so not pinned: {', '.join(sorted(missing))}", file=sys.stderr)
        return 1
    print("# Written by `make pins`. torch: the CPU and the CUDA build share this version.")
    print("\n".join(f"{name}=={version}" for name, version in sorted(versions.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
