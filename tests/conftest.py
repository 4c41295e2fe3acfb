"""What all tests share: threads that do not fight, properties that nobody times, and the browser tests' conditions."""

import os
import shutil
import sys
from pathlib import PurePosixPath

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler.loadscope import LoadScopeScheduling

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# On a busy machine an example may take any time. The rest is as hypothesis has it: in CI always the same examples.
settings.register_profile("course", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow]))
settings.load_profile("course")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class ByFile(LoadScopeScheduling):
    """How several processes share the tests: file by file, for what a file sets up or counts.

    What needs Ray is one unit, for two clusters at once are too much for a small machine; long tests that have nothing
    in common are one unit each. (The mark `xdist_group` does nothing under pytest 9.2 with xdist 3.8.)
    """

    def _split_scope(self, nodeid: str) -> str:
        path = PurePosixPath(nodeid.split("::")[0])
        if path.parent.name == "labs":
            return nodeid
        return str(path.parent if path.parent.name == "on_ray" else path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    """Asked by xdist once, before the tests are handed out."""
    return ByFile(config, log)


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
