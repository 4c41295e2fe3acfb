"""The course map, the home page and a student's progress."""

import re

import pytest

from llmcourse import course, progress
from llmcourse.cli import home
from llmcourse.errors import UserError
from llmcourse.paths import ROOT


def test_sixteen_weeks_in_order():
    assert [week.number for week in course.weeks()] == list(range(1, 17))
    assert course.find_week("02").title.startswith("Inference, the KV cache")


@pytest.mark.parametrize("text", ["0", "17", "two", "-1", "²"])
def test_no_such_week(text):
    with pytest.raises(UserError, match="weeks are 1 to 16"):
        course.find_week(text)


@pytest.mark.parametrize("page", ["README.md", "index.py"])
def test_the_map_on_the_pages_is_the_courses(page):
    path = ROOT / page
    assert path.read_text(encoding="utf-8") == home.pages()[path], "run `make notebooks`"


def test_links_lead_somewhere_and_what_is_missing_is_marked():
    text = home.week_map()
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert all((ROOT / target).is_file() for target in targets)
    assert "| 16 | Project and exam | planned |" in text


def test_markers_must_stand_once():
    with pytest.raises(UserError, match="<!-- weeks -->"):
        home.replace_map("no markers")
    once = "<!-- weeks -->\nold\n<!-- end of weeks -->"
    assert "old" not in home.replace_map(once) and "Module 1" in home.replace_map(once)
    with pytest.raises(UserError):
        home.replace_map(once + "\n" + once)


def test_progress_is_kept_and_shown(tmp_path):
    file = tmp_path / ".progress.json"
    assert progress.read(file) == {}
    progress.record("lab01_x", progress.Score(3, 10, "2026-01-02T03:04:05"), file)
    progress.record("lab02_y", progress.Score(0, 8, "2026-01-02T03:04:05"), file)
    progress.record("lab01_x", progress.Score(7.5, 10, "2026-02-02T03:04:05"), file)
    assert progress.read(file)["lab01_x"].points == 7.5 and len(progress.read(file)) == 2
    assert [item.name for item in tmp_path.iterdir()] == [".progress.json"]
    shown = home.Progress(file)
    week = course.find_week("1")
    shown.labs = [(week, tmp_path / "lab01_x.ipynb"), (course.find_week("3"), tmp_path / "lab03_z.ipynb")]
    assert "7.5 of 10 points" in repr(shown) and "2026-02-02 03:04" in repr(shown) and "not checked yet" in repr(shown)
    assert "<td>7.5 of 10 points</td>" in shown._repr_html_()


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"lab": 3}', '{"lab": {"points": 1}}'])
def test_a_damaged_file_is_no_progress(tmp_path, damage):
    file = tmp_path / ".progress.json"
    file.write_text(damage)
    assert progress.read(file) == {}
