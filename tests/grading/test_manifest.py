"""What a lab consists of, and every mistake of its author that is refused with file and line."""

from pathlib import Path

import pytest

from llmcourse.errors import UserError
from llmcourse.grading.manifest import read_lab
from tests.grading.toy import TOY, edited, without


def test_the_toy_lab_is_read() -> None:
    lab = read_lab(TOY)
    assert (lab.name, lab.points, [e.id for e in lab.exercises]) == ("lab99_toy", 5, ["kv_bytes", "bucket"])
    first, second = lab.exercises
    assert (first.checks, first.hidden) == (("grouped_queries",), ("other_widths", "no_layers"))
    assert (first.points, first.difficulty, first.minutes, first.needs) == (2, 2, 10, "week 2, part 1")
    assert first.mutants[0].name == "counts K but forgets V"
    assert second.names == ("Bucket", "drain")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("kv-answer", 'no cell with role="answer"'),
        ("kv-check", 'no cell with role="check"'),
        ("kv-m2", "2 mutants"),
        ("kv", 'no exercise "kv_bytes"'),
    ],
)
def test_an_exercise_needs_all_its_parts(tmp_path: Path, key: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        read_lab(without(tmp_path, key))
    assert str(error.value).startswith(f"{tmp_path / 'lab99_toy.py'}:")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("points=2 ", "", "no points"),
        ("points=2 ", 'points="2" ', "points='2'"),
        ("difficulty=2", "difficulty=6", "from 1 to 5"),
        ('role="help"', 'role="hint"', 'role "hint" is unknown'),
        ('role="check" exercise="bucket"', 'role="check" exercise="buckets"', 'no cell with role="check"'),
        ('key="kv-m3" role="mutant"', 'key="kv-m3" role="check"', "kv_bytes"),
        ('name="counts query heads"', "", "named after its misconception"),
        ('@check("kv_bytes")\ndef grouped', '@check("bucket")\ndef grouped', 'this cell checks "kv_bytes"'),
        ('@check("kv_bytes")\ndef grouped', "def grouped", "holds no check"),
        ("def other_widths", "def grouped_queries", 'two checks called "grouped_queries"'),
        ("    ### END SOLUTION\n\n\n# %%", "\n\n# %%", "never closed"),
        ("    ### BEGIN SOLUTION\n    return 2 *", "    return 2 *", "holds no solution"),
        ("HEADS = 32", "HEADS = 32\n### BEGIN SOLUTION", 'only a cell with role="answer"'),
        ("HEADS = 32", "HEADS = = 32", "line 3 of the cell is no Python"),
        ("# ## Exercise 1", "# Exercise 1", "starts with a heading"),
        (
            '# %% key="kv-m1" role="mutant" exercise="kv_bytes" name="counts K but forgets V"\ndef kv_bytes(',
            '# %% key="kv-m1" role="mutant" exercise="kv_bytes" name="counts K but forgets V"\ndef kv_byte(',
            "defines none of the answer's names: kv_bytes",
        ),
    ],
)
def test_an_authors_mistake_is_named_with_its_place(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        read_lab(edited(tmp_path, (old, new)))
    assert words in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'lab99_toy.py'}:")


def test_the_order_is_statement_answer_check(tmp_path: Path) -> None:
    text = TOY.read_text()
    answer, check, hidden = (text.index(f'# %% key="kv-{key}"') for key in ("answer", "check", "hidden"))
    path = tmp_path / "lab99_toy.py"
    path.write_text(text[:answer] + text[check:hidden] + text[answer:check] + text[hidden:])
    with pytest.raises(UserError, match="statement, answer, check"):
        read_lab(path)
