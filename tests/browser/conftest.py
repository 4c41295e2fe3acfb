"""One server and one browser for all browser tests: each costs seconds to start."""

import shutil

import pytest

from llmcourse.paths import ROOT

pytest.importorskip("playwright", reason="the browser tests need playwright (make test installs it)")

from tests.browser.lab import browsing, serving


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """A copy of the course's pages, so that no test can change them."""
    folder = tmp_path_factory.mktemp("course")
    pages = [ROOT / "index.ipynb", *ROOT.glob("week[0-9][0-9]/*.ipynb"), *ROOT.glob("week[0-9][0-9]/*.json")]
    for page in pages:
        copy = folder / page.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(page, copy)
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
