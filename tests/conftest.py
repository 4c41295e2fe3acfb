"""What all tests share: threads that do not fight, properties that nobody times, and the browser tests' conditions."""

import os
import shutil
import sys

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# On a busy machine an example may take any time. The rest is as hypothesis has it: in CI always the same examples.
settings.register_profile("course", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow]))
settings.load_profile("course")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


EACH_BY_ITSELF = ("labs",)                             # long tests that share nothing


@pytest.hookimpl(tryfirst=True)                       # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Several processes share the tests file by file, for what a file sets up; those that need Ray share one."""
    for item in items:
        folder = item.path.parent.name
        if folder not in EACH_BY_ITSELF:
            item.add_marker(pytest.mark.xdist_group("on_ray" if folder == "on_ray" else str(item.path)))


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a browser; without one the test is skipped, but in CI it fails: there it must run."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        message = "no Chromium on the PATH (apt-get install chromium)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return found


@pytest.fixture(autouse=True)
def torch_as_it_was():
    """A notebook that runs in this process may switch gradients off; the next test must not notice."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_grad_enabled(True)
