"""The command's table: help, unknown commands, exit codes, and a fast start."""

import importlib.util
import subprocess
import sys
from types import ModuleType

import pytest

import llmcourse
from llmcourse import cli
from llmcourse.errors import UserError


def stand_in(monkeypatch, outcome):
    """Put a command `probe` into the table; it returns `outcome`, or raises it."""
    module = ModuleType("probe_command")

    def main(argv):
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    module.main = main
    monkeypatch.setitem(sys.modules, "probe_command", module)
    monkeypatch.setitem(cli.COMMANDS, "probe", ("probe_command:main", "for this test"))


def test_help_lists_every_command(capsys):
    for argv in ([], ["--help"], ["-h"], ["help"]):
        assert cli.main(argv) == 0
        text = capsys.readouterr().out
        assert all(name in text and what in text for name, (_, what) in cli.COMMANDS.items())


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"llmcourse {llmcourse.__version__}\n"


@pytest.mark.parametrize(("typed", "meant"), [("dcotor", "doctor"), ("generat", "generate"), ("zzz", "doctor, lab")])
def test_an_unknown_command_is_one_line_with_what_would_work(capsys, typed, meant):
    assert cli.main([typed]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and meant in error and typed in error


OUTCOMES = [(0, 0), (None, 0), (1, 1), (UserError("a\nb"), 2), (KeyboardInterrupt(), 130)]


@pytest.mark.parametrize(("outcome", "code"), OUTCOMES)
def test_exit_codes(monkeypatch, capsys, outcome, code):
    stand_in(monkeypatch, outcome)
    assert cli.main(["probe"]) == code
    assert capsys.readouterr().err == ("llmcourse probe: a b\n" if code == 2 else "")


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_in_the_table_exists(name):
    module, function = cli.COMMANDS[name][0].split(":")
    source = importlib.util.find_spec(module).loader.get_source(module)
    assert f"def {function}(" in source


def test_the_start_loads_nothing_heavy():
    """Counted in modules, not seconds: seconds depend on who else uses the machine."""
    program = "import sys; from llmcourse import cli; cli.main(['--help']); print(*sys.modules, file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stderr.split()}
    assert not loaded & {"torch", "numpy", "pandas", "plotly", "jupyterlab", "nbformat", "ray", "asyncio"}
    assert len(loaded) < 100


def test_a_reader_that_leaves_is_no_error():
    run = subprocess.run(f"{sys.executable} -m llmcourse --help | true", shell=True, capture_output=True, text=True)
    assert run.stderr == ""


@pytest.mark.parametrize("line", ["demo 99", "demo", "run", "check x.ipynb --timeout 0", "check", "doctor --bogus",
                                  "generate", "data nothing", "sim --bogus", "bench decide --seeds x",
                                  "bench migration --bogus", "bench scaling --bogus", "bench balance --bogus"])
def test_every_command_says_what_is_wrong_in_one_line(line, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(line.split())
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1
    assert error.startswith(f"llmcourse {line.split()[0]}") and error.endswith("; see --help\n")
