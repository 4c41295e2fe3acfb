"""`llmcourse run`: fresh kernels, times by cell, one block for what failed, and nothing left behind."""

import json
import os

import nbformat
import pytest

from llmcourse import cli
from llmcourse.cli import run
from llmcourse.errors import UserError


@pytest.fixture
def notebook(tmp_path):
    """Write a notebook whose cells are `sources`, keyed cell-0, cell-1, ..."""

    def write(*sources, name="x.ipynb"):
        cells = [nbformat.v4.new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(sources)]
        cells.insert(0, nbformat.v4.new_markdown_cell("# a title", id="title"))
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / name)
        return tmp_path / name

    return write


def test_a_notebook_runs_in_its_folder_in_a_fresh_kernel_and_leaves_nothing(notebook, tmp_path, capsys):
    path = notebook("x = 1", f"import os; assert os.path.samefile('.', {str(tmp_path)!r}); print('out')")
    again = notebook("assert 'x' not in globals()", name="y.ipynb")
    before = path.read_bytes(), again.read_bytes(), dict(os.environ)
    assert cli.main(["run", str(path), str(again)]) == 0
    assert (path.read_bytes(), again.read_bytes(), dict(os.environ)) == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["x.ipynb", "y.ipynb"]
    text = capsys.readouterr().out
    assert "(2 cells; slowest: cell-" in text and "2 run, 0 failed" in text


def test_a_failing_cell_is_named_with_its_error_and_stops_its_notebook(notebook, capsys):
    path = notebook("def f(x):\n    return 1 / x", "f(0)", "print('never')")
    assert cli.main(["run", str(path)]) == 1
    text = capsys.readouterr().out
    assert "| cell cell-1: ZeroDivisionError: division by zero" in text and "return 1 / x" in text
    assert "\x1b" not in text and "1 failed" in text


def test_json_has_times_by_key_and_the_failure(notebook, capsys):
    path = notebook("import time; time.sleep(0.2)", "def broken(:")
    assert cli.main(["run", "--json", str(path)]) == 1
    [result] = json.loads(capsys.readouterr().out)
    assert result["cells"]["cell-0"] >= 0.2 and result["seconds"] >= result["cells"]["cell-0"]
    assert result["failure"]["key"] == "cell-1" and result["failure"]["kind"] == "SyntaxError"


def test_a_dead_kernel_and_an_endless_cell_are_said_so(notebook):
    dead = run.execute(notebook("import os; os._exit(3)"), 60)
    assert (dead.failure.key, dead.failure.kind) == ("cell-0", "DeadKernel")
    endless = run.execute(notebook("x = 1", "import time; time.sleep(3600)"), 4)
    assert (endless.failure.key, endless.failure.kind) == ("cell-1", "Timeout")
    assert 4 <= endless.seconds < 30


@pytest.mark.parametrize(("asked", "said"), [
    ("99", "weeks are 1 to 16"), ("nope.ipynb", "no notebook 'nope.ipynb'"), ("16", "has no lecture yet"),
])
def test_bad_names_are_one_line(asked, said):
    with pytest.raises(UserError, match=said):
        run.find_notebook(asked)


def test_a_file_that_is_no_notebook_is_one_line(tmp_path, capsys):
    path = tmp_path / "x.ipynb"
    path.write_text("{")
    assert cli.main(["run", str(path)]) == 2
    assert "is not a notebook" in capsys.readouterr().err
    assert cli.main(["run", "--timeout", "nan", str(path)]) == 2
    assert "above 0" in capsys.readouterr().err
