"""Masters in percent format: what is read, and what is refused with its line."""

from pathlib import Path

import pytest

from llmcourse.errors import UserError
from llmcourse.grading.percent import read_master
from tests.grading.toy import TOY


def master(folder: Path, text: str) -> Path:
    path = folder / "m.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_cells_keep_their_options_and_lines(tmp_path: Path) -> None:
    path = master(
        tmp_path,
        '"""Doc."""\n\n# %% [markdown] key="a" lang="en"\n# # Title\n#\n# Text.\n# %% key="b" points=2\nx = 1\n\n',
    )
    one, two = read_master(path)
    assert (one.kind, one.key, one.source, one.line) == ("markdown", "a", "# Title\n\nText.", 3)
    assert (two.kind, two.key, two.source, two.line) == ("code", "b", "x = 1", 7)
    assert two.options == {"points": 2}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('# %% [markdown] key="a"\n# hi\n', 1, 'lang="en"'),
        ('# %% key="a"\nx = 1\n# %% key="a"\ny = 1\n', 3, "already used on line 1"),
        ("# %%\nx = 1\n", 1, "no key"),
        ('# %% key="Big Key"\nx = 1\n', 1, "will not do"),
        ('# %% key="a" points=two\nx = 1\n', 1, "points=two"),
        ('# %% [markdown] key="a" lang="en"\n# hi\nx = 1\n', 3, 'starts with "# "'),
        ('# %% key="a"\n\n', 1, "empty"),
        ('# %% key="a"\n%matplotlib inline\n', 1, "no magics"),
        ('# %% key="a"\n!ls\n', 1, "no magics"),
    ],
)
def test_a_broken_master_is_refused_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = master(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_master(path)
    assert str(error.value).startswith(f"{path}:{line}: ") and words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_without_cells_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no cells"):
        read_master(master(tmp_path, "x = 1\n"))
    with pytest.raises(UserError, match="no such master"):
        read_master(tmp_path / "absent.py")


def test_jupytext_reads_the_same_cells() -> None:
    jupytext = pytest.importorskip("jupytext")
    theirs = jupytext.read(TOY, fmt="py:percent").cells
    theirs = [cell for cell in theirs if cell.metadata.get("key")]
    ours = read_master(TOY)
    assert [(c.key, c.kind, c.source) for c in ours] == [(c.metadata["key"], c.cell_type, c.source) for c in theirs]
