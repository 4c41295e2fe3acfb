"""One server and one browser for all browser tests: each costs seconds to start."""

import shutil

import pytest

from llmcourse.paths import ROOT

pytest.importorskip("playwright", reason="the browser tests need playwright (make test installs it)")

from tests.browser.lab import browsing, serving

PAGES = ("index.ipynb", "week01/lecture.ipynb", "week02/lecture.ipynb", "week02/demo.ipynb")


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """A copy of the course's pages, so that no test can change them."""
    folder = tmp_path_factory.mktemp("course")
    for page in PAGES:
        if (ROOT / page).is_file():
            (folder / page).parent.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / page, folder / page)
    return folder


@pytest.fixture(scope="session")
def server(course, tmp_path_factory):
    with serving(course, tmp_path_factory.mktemp("state")) as running:
        yield running


@pytest.fixture(scope="session")
def browser(chromium):
    with browsing(chromium) as running:
        yield running


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    yield page
    page.close()
