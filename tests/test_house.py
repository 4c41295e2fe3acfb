"""The house keeps its rules: floors, light imports, linters, short files, dependencies in step, no machine's paths."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from llmcourse.paths import ROOT

LONGEST = 250
# Files that may be longer, each with its reason.
LONG: dict[str, str] = {}
BIN = Path(sys.executable).parent
MACHINE_PATH = re.compile(r"(?<![\w./-])(/(?:root|home/\w+|work|Users/\w+|opt/\w+)/)")


def tracked() -> list[Path]:
    """Files under version control; in an unpacked archive there are none."""
    run = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in run.stdout.split("\0") if name and (ROOT / name).is_file()]


def tool(name: str, *arguments: str) -> None:
    """Run a linter of this environment on the house; its report is the failure."""
    program = BIN / name
    assert program.is_file(), f"{name} is not installed: make test"
    run = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_an_import_points_downwards():
    tool("lint-imports")


def test_ruff():
    tool("ruff", "check", "--output-format=concise", "llmcourse", "tests", "config", "index.py", "labs", "benchmarks",
         *(path.name for path in sorted(ROOT.glob("week[0-9][0-9]"))))


def test_mypy():
    tool("mypy")


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that are loaded in a new Python after `statement`."""
    program = f"{statement}; import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.split()}


def test_the_package_is_light_to_import():
    heavy = {"torch", "numpy", "pandas", "plotly", "ray", "fastapi", "jupyterlab", "IPython", "transformers"}
    assert not loaded_by("import llmcourse") & heavy


@pytest.mark.parametrize("module", [
    "engine", "engine.scheduler", "engine.invariants", "policies", "metrics", "metrics.roofline", "metrics.records",
    "kv.block_pool", "model.config", "model.shapes", "executors", "executors.mock", "serve", "predict", "predict.data",
    "predict.evaluate", "predict.measure", "predict.noise", "predict.predictor", "predict.ridge",
    "predict.store",
])
def test_scheduling_needs_no_torch(module):
    assert "torch" not in loaded_by(f"import llmcourse.{module}")


def test_a_file_is_one_idea():
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
               for room in ("llmcourse", "benchmarks") for path in (ROOT / room).rglob("*.py")}
    assert lengths
    assert {name: length for name, length in lengths.items() if length > LONGEST and name not in LONG} == {}
    assert [name for name in LONG if lengths.get(name, 0) <= LONGEST] == [], "no longer long: take them off the list"


def test_every_module_says_what_it_is():
    modules = [path for path in (ROOT / "llmcourse").rglob("*.py") if path.stat().st_size]
    silent = [path.name for path in modules if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert modules and silent == []


def test_no_path_of_one_machine():
    found = []
    for path in tracked():
        if path.suffix in {".safetensors", ".png"} or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in MACHINE_PATH.finditer(text)]
    assert found == []


# -- dependencies: pyproject.toml, constraints.txt and environment.yml say the same ------------------------------------


@pytest.fixture(scope="module")
def pin():
    """config/pin.py, which is no package."""
    spec = spec_from_file_location("pin", ROOT / "config" / "pin.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "a pin is name==version"
    return dict(pairs)


def test_everything_asked_for_is_pinned_at_a_version_that_is_asked_for(pin, pins):
    for text in pin.asked():
        requirement = pin.Requirement(text)
        version = pins.get(pin.canonical(requirement.name))
        assert version and requirement.specifier.contains(version), f"{text}, pinned at {version}: run `make pins`"


def test_what_is_installed_is_what_is_pinned(pin, pins):
    versions, _ = pin.closure(pin.asked())
    assert len(versions) > 50
    different = {name: (version, pins.get(name)) for name, version in versions.items() if pins.get(name) != version}
    assert different == {}, "installed, pinned"


def test_no_build_of_torch_is_pinned_and_none_brings_cuda(pins):
    assert "+" not in pins["torch"]
    blocked = [line for line in (ROOT / "config" / "cpu-only.txt").read_text().splitlines() if not line.startswith("#")]
    names = {line.partition("<")[0] for line in blocked}
    assert {"cuda-bindings", "nvidia-cudnn-cu13"} <= names
    assert not names & set(pins) and not [name for name in pins if name.startswith(("nvidia-", "cuda-"))]


def test_the_conda_environment_uses_the_same_files():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"name: {project['name']}\n" in text
    assert f"- python {project['requires-python']}" in text
    for line in ("--constraint constraints.txt", "--constraint config/cpu-only.txt", "--editable .[dev]"):
        assert f"- {line}\n" in text
    assert "==" not in text
