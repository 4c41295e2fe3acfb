"""`@check` in a notebook: runs at once, says PASS in a line, or fails in a sentence without our traceback."""

from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from llmcourse.grading import CheckFailed, check, expect_equal
from llmcourse.grading.exercise import listening, run_check
from llmcourse.grading.student import NamespaceStudent, Student

SETUP = "from llmcourse.grading import check, expect_equal\n"
CHECK = '@check("ex")\ndef name(student):\n    """Doubles."""\n    expect_equal(student.call("double", 2), 4)\n'


def notebook(source: str) -> tuple[str, BaseException | None]:
    """Output and error of cells run one after another in one IPython shell."""
    shell = InteractiveShell()
    with capture_output() as captured:
        for cell in (SETUP, source, CHECK):
            result = shell.run_cell(cell)
    return captured.stdout, result.error_in_exec


def test_pass_is_one_line() -> None:
    assert notebook("def double(x): return 2 * x") == ("PASS ex · name: Doubles.\n", None)


def test_a_wrong_answer_is_a_sentence() -> None:
    output, error = notebook("def double(x): return x")
    assert isinstance(error, CheckFailed)
    assert str(error) == "FAIL ex · name: Doubles.\ngot 2; expected 4\n  asked: double(2)"
    assert output.strip() == str(error)


def test_the_call_is_left_out_where_a_check_has_a_better_word() -> None:
    def silent(student: Student) -> None:
        got = student.call("double", 2)
        student.last = ""
        expect_equal(got, 4)

    verdict = run_check("ex", silent, NamespaceStudent({"double": lambda x: x}))
    assert (verdict.status, verdict.message) == ("FAIL", "got 2; expected 4")


def test_a_stub_shows_as_not_implemented_in_one_line() -> None:
    output, error = notebook('def double(x): raise NotImplementedError("double is not written yet")')
    assert isinstance(error, NotImplementedError) and type(error).__name__ == "NotImplementedError"
    assert output.strip() == "ex · name: double is not written yet"


def test_a_crash_shows_the_students_line_and_no_other() -> None:
    output, error = notebook("def double(x):\n    y = x\n    return y / 0")
    assert isinstance(error, CheckFailed)
    assert "double(2) raised ZeroDivisionError: division by zero" in output
    assert "in your double, line 3: return y / 0" in output
    assert "llmcourse/grading" not in output and "Traceback" not in output


def test_a_listener_gets_verdicts_and_nothing_raises() -> None:
    student = NamespaceStudent({"double": lambda x: x})
    with listening(student) as verdicts:

        @check("ex")
        def wrong(student: Student) -> None:
            """Doubles."""
            expect_equal(student.call("double", 2), 4)

        @check("ex")
        def broken(student: Student) -> None:
            student.call("double", {"a": 1})["b"]

        @check("ex")
        def missing(student: Student) -> None:
            student.call("triple")

    assert [(v.name, v.status) for v in verdicts] == [("wrong", "FAIL"), ("broken", "BROKEN"), ("missing", "ERROR")]
    assert "the check stopped with KeyError: 'b'" in verdicts[1].message


def test_patching_the_notebooks_own_names_changes_no_verdict() -> None:
    evil = "import builtins, math\nmath.isclose = lambda *a, **k: True\ndef double(x): return 5"
    _, error = notebook(evil)
    assert isinstance(error, CheckFailed)


@pytest.mark.parametrize("value", ["AlwaysTrue()", "AlwaysTrue(4)", "[AlwaysTrue()]"])
def test_an_always_true_answer_is_no_plain_value(value: str) -> None:
    hostile: Any = "class AlwaysTrue(int):\n    def __eq__(self, other): return True\n"
    _, error = notebook(f"{hostile}def double(x): return {value}")
    assert "class AlwaysTrue, built on int but not a plain int" in str(error)
