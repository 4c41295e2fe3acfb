"""JupyterLab as a student meets it: the home page, and lectures and demos whose widgets answer."""

import nbformat
import pytest

from tests.browser.lab import Notebook

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LATE = [pytest.param(week, marks=pytest.mark.nightly) for week in (7, 8, 9, 10)]      # lectures that take longer to run
PANELS = [(7, 1, "link"), (8, 0, "step"), (9, 0, "noise"), (10, 0, "heavy")]          # week, widget, its slider


def write(cells, path):
    """A notebook of these cells for Python."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


def assert_quiet(notebook: Notebook) -> None:
    """Nothing failed in a cell or in the page, and nothing left the machine."""
    assert notebook.cell_errors() == []
    assert notebook.errors == []
    assert notebook.outside == []


def test_the_home_page_opens_and_shows_progress(server, page):
    notebook = Notebook(page, server, "index.ipynb")
    notebook.run_all()
    page.locator("td:has-text('Inference, the KV cache')").first.wait_for(state="visible")
    assert page.locator("caption:has-text('not a grade')").count() == 1
    assert page.locator(".jp-Dialog, .jp-toast-message").count() == 0
    assert_quiet(notebook)


def test_the_driver_sees_errors_and_requests_that_leave(server, page, course):
    """The gate itself: a cell that fails, and a picture from elsewhere, must both be noticed."""
    away = "from IPython.display import HTML; HTML('<img src=\"https://elsewhere.invalid/x.png\">')"
    cells = [nbformat.v4.new_code_cell(source) for source in (away, "1 / 0")]
    write(cells, course / "bad.ipynb")
    notebook = Notebook(page, server, "bad.ipynb")
    notebook.run_all()
    assert any("ZeroDivisionError" in text for text in notebook.cell_errors())
    assert set(notebook.outside) == {"https://elsewhere.invalid/x.png"}
    assert notebook.errors


def test_printed_lines_break_between_words(server, page, course):
    """The course's style is served and stronger than JupyterLab's own, which breaks a line inside a number."""
    write([nbformat.v4.new_code_cell("print('a prediction of 1,024 tokens ' * 20)")], course / "printed.ipynb")
    notebook = Notebook(page, server, "printed.ipynb")
    notebook.run_all()
    assert page.locator(".jp-OutputArea-output pre").evaluate("node => getComputedStyle(node).wordBreak") == "normal"
    assert_quiet(notebook)


def answers(notebook, widget=0, slider=".llmcourse-slider"):
    """Run all, move a slider of that widget there and back; nothing goes wrong. Seconds until each new picture."""
    notebook.run_all()
    assert notebook.widgets() > widget
    seconds = [notebook.move(slider, widget, key) for key in ("ArrowRight", "ArrowLeft", "ArrowRight")]
    assert_quiet(notebook)
    return seconds


@pytest.mark.parametrize("week", [2, 3, 4, 5, 6, *LATE])
def test_a_slider_is_answered_within_a_second(week, server, page):
    """Run all of the week's lecture, move a slider, see another picture."""
    seconds = answers(Notebook(page, server, f"week{week:02}/lecture.ipynb"))
    assert min(seconds) < 1, f"answered after {seconds} s"


@pytest.mark.parametrize(("week", "widget", "slider"), PANELS)
def test_a_projected_page_answers(week, widget, slider, server, page):
    """The same of what `llmcourse demo` shows, the widgets of the later lectures: seconds to run, each day."""
    answers(Notebook(page, server, f"week{week:02}/demo.ipynb"), widget, f".llmcourse-control-{slider}")
