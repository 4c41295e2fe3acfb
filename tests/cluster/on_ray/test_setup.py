"""What a person reads when Ray cannot be had, and that nobody loads it who does not ask for it."""

import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest

from llmcourse.cluster.on_ray import setup
from llmcourse.errors import UserError
from llmcourse.paths import ROOT


def test_nobody_loads_ray_before_a_driver_is_made():
    program = "import sys, llmcourse.cluster; assert llmcourse.cluster.RayDriver; print('ray' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_without_ray_one_line_says_what_to_do(monkeypatch):
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_NoRay(), *sys.meta_path])
    with pytest.raises(UserError, match=r"Ray is not installed; pip install") as error:
        setup.connect()
    assert "\n" not in str(error.value)


class _NoRay:
    """A machine without Ray."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")


def test_ray_that_was_imported_first_would_listen_everywhere(monkeypatch):
    fake = types.ModuleType("ray")
    fake.is_initialized = lambda: False
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    with pytest.raises(UserError, match="before anything imports ray"):
        setup.connect()


def test_a_start_that_fails_twice_leaves_no_folder_and_says_one_line(monkeypatch, ray_unconnected):
    folders = []

    def init(_temp_dir, **_):
        folders.append(_temp_dir)
        raise Exception("The current node timed out during startup.\nIt may be overloaded.")
    monkeypatch.setattr(sys.modules["ray"], "init", init, raising=False)
    monkeypatch.setattr(sys.modules["ray"], "shutdown", lambda: None, raising=False)
    monkeypatch.setattr(setup, "load_ray", lambda wanted: sys.modules["ray"])
    before = list(setup._started)
    with pytest.raises(UserError, match=r"twice: The current node timed out during startup\.$"):
        setup.connect()
    assert len(folders) == 2 and not Path(folders[0]).exists() and setup._started == before


@pytest.mark.parametrize(("address", "says"), [
    ("127.0.0.1:{port}", "no Ray cluster answers at"), ("somewhere", "is no address"), (":6379", "is no address"),
], ids=("nobody", "no-port", "no-host"))
def test_an_address_where_nobody_is(ray_unconnected, address, says):
    with socket.socket() as taken:                            # and not listened to
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match=says) as error:
            setup.connect(address.format(port=taken.getsockname()[1]))
    assert "\n" not in str(error.value)


@pytest.fixture
def ray_unconnected(monkeypatch):
    """Whatever other tests have started, here nothing runs yet."""
    fake = types.ModuleType("ray")
    fake.is_initialized = lambda: False
    monkeypatch.setitem(sys.modules, "ray", fake)
