"""Masters become notebooks: the same bytes each time, ids from keys, and a student version that gives nothing away."""

import json
from pathlib import Path

import nbformat
import pytest

from llmcourse.errors import UserError
from llmcourse.grading.builder import build_lab, build_lecture, main, write
from llmcourse.grading.percent import read_master
from tests.grading.toy import TOY, cell, edited

LECTURE = '# %% [markdown] key="goals" lang="en"\n# # Week 2\n# %% key="x" tags="hide-input" folded="true"\nx = 1\n'


@pytest.fixture
def house(tmp_path: Path) -> Path:
    (tmp_path / "labs" / "source").mkdir(parents=True)
    (tmp_path / "week02").mkdir()
    (tmp_path / "labs" / "source" / "lab99_toy.py").write_text(TOY.read_text())
    (tmp_path / "week02" / "lecture.py").write_text(LECTURE)
    return tmp_path


def test_the_student_version_holds_every_cell_but_the_secret_ones() -> None:
    ids = [each["id"] for each in build_lab(TOY)["cells"]]
    shown = [each.key for each in read_master(TOY) if each.role not in ("hidden", "mutant")]
    assert ids == [shown[0], "exercise-table", *shown[1:]]


def test_the_student_version_gives_no_solution_away() -> None:
    text = write(build_lab(TOY))
    for secret in ("SOLUTION", "other_widths", "refuses", "counts K", "2 * layers", "yield clock"):
        assert secret not in text
    assert 'raise NotImplementedError(\\"Bucket.take is not written yet\\")' in text


def test_every_version_is_a_valid_notebook_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    for version in ("student", "reference", "kv-m1"):
        text = write(build_lab(TOY, version, hidden=version != "student"))
        assert text == write(build_lab(TOY, version, hidden=version != "student"))
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
        assert nbformat.writes(notebook) + "\n" == text
        assert all(not each.get("outputs") for each in notebook.cells)


def test_nbgrader_metadata_and_locks() -> None:
    notebook = build_lab(TOY)
    answer, check = cell(notebook, "kv-answer")["metadata"], cell(notebook, "kv-check")["metadata"]
    assert answer["nbgrader"] == {
        "grade": False, "grade_id": "kv-answer", "locked": False, "schema_version": 3, "solution": True, "task": False,
    }  # fmt: skip
    assert check["nbgrader"] == {
        "grade": True, "grade_id": "kv-check", "locked": True, "points": 2, "schema_version": 3, "solution": False,
        "task": False,
    }  # fmt: skip
    assert "editable" not in answer and answer["deletable"] is False
    locked = [each for each in notebook["cells"] if each["metadata"].get("editable") is False]
    assert len(locked) == len(notebook["cells"]) - 2


def test_the_header_line_the_table_and_the_help() -> None:
    notebook = build_lab(TOY)
    header = "".join(cell(notebook, "kv")["source"]).splitlines()[2]
    assert header.startswith("**2 points** · difficulty ●●○○○ (2 of 5) · about 10 minutes · needs week 2, part 1")
    assert header.endswith("1 of 3 checks visible")
    table = "".join(cell(notebook, "exercise-table")["source"])
    assert "| **Total** | **5** | | **30** | **2 of 5 checks visible** |" in table
    help_ = "".join(cell(notebook, "kv-help")["source"])
    assert help_.startswith("<details>\n<summary>My number is half of what the check expects</summary>\n\n")


def test_a_mutant_follows_the_reference_answer() -> None:
    source = "".join(cell(build_lab(TOY, "bucket-m1"), "bucket-answer")["source"])
    assert source.index("class Bucket:") < source.index("class Bucket(Bucket):")
    with pytest.raises(UserError, match='no version "kv-m9"; there are reference, student, kv-m1'):
        build_lab(TOY, "kv-m9")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            'def kv_bytes(layers, heads, dim, width=2):\n    """Bytes',
            'def kv_bytes(layers, heads, dim, width=2):\n    """Byte',
        ),
        ("    ### BEGIN SOLUTION\n    return 2 *", "    ### BEGIN SOLUTION\n    return 3 *"),
    ],
)
def test_helpers_outside_a_function_leave_a_comment(tmp_path: Path, old: str, new: str) -> None:
    helper = '"kv_bytes"\n### BEGIN SOLUTION\ndef _twice(n):\n    return 2 * n\n### END SOLUTION\n\n\ndef kv_bytes'
    path = edited(tmp_path, (old, new), ('"kv_bytes"\ndef kv_bytes', helper))
    source = "".join(cell(build_lab(path), "kv-answer")["source"])
    assert source.startswith("# YOUR CODE HERE\n") and "_twice" not in source and "raise NotImpl" in source


def test_a_stub_with_nothing_left_is_refused(tmp_path: Path) -> None:
    text = "### BEGIN SOLUTION\ndef kv_bytes(layers, heads, dim, width=2):\n    pass\n### END SOLUTION\n"
    path = edited(tmp_path, ('"kv_bytes"\ndef kv_bytes', f'"kv_bytes"\n{text}def kv_bytes'))
    body = path.read_text()
    start = body.index("def kv_bytes", body.index("### END SOLUTION"))
    path.write_text(body[:start] + body[body.index('# %% key="kv-check"') :])
    with pytest.raises(UserError, match="nothing left to write"):
        build_lab(path)


def test_a_lecture_is_built_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "lecture.py"
    path.write_text(LECTURE + '# %% [markdown] key="zh" lang="zh"\n# 你好\n')
    notebook = build_lecture(path)
    assert [each["id"] for each in notebook["cells"]] == ["goals", "x"]
    code = cell(notebook, "x")["metadata"]
    assert code["tags"] == ["hide-input"] and code["jupyter"] == {"source_hidden": True}
    path.write_text(LECTURE.replace('key="x"', 'key="x" role="answer" exercise="e"'))
    with pytest.raises(UserError, match="belongs to a lab"):
        build_lecture(path)


def test_make_notebooks_builds_and_then_finds_nothing_to_do(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(house), "--check"]) == 1
    assert not (house / "labs" / "lab99_toy.ipynb").exists()
    assert main(["--root", str(house)]) == 0
    assert "2 notebooks examined: 2 written" in capsys.readouterr().out
    assert main(["--root", str(house), "--check"]) == 0
    assert "2 up to date" in capsys.readouterr().out


def test_check_fails_on_a_changed_build_and_on_a_dropped_cell(house: Path) -> None:
    main(["--root", str(house)])
    path = house / "labs" / "lab99_toy.ipynb"
    notebook = json.loads(path.read_text())
    del notebook["cells"][4]
    path.write_text(write(notebook))
    assert main(["--root", str(house), "--check"]) == 1


def test_check_fails_on_a_notebook_without_a_master(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--root", str(house)])
    (house / "labs" / "source" / "lab99_toy.py").unlink()
    assert main(["--root", str(house), "--check"]) == 1
    assert "no master   labs/lab99_toy.ipynb" in capsys.readouterr().out


def test_one_broken_master_does_not_keep_the_others_from_being_built(house: Path) -> None:
    (house / "week02" / "lecture.py").write_text("# %%\nx = 1\n")
    assert main(["--root", str(house)]) == 2
    assert (house / "labs" / "lab99_toy.ipynb").is_file()


def test_nothing_to_build_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path)]) == 2
    assert "no masters found" in capsys.readouterr().err
