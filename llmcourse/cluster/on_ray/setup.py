"""Ray, started for us alone or joined by address.

Left to itself Ray listens on every network interface of the machine, writes a token into the home folder and reports
its use. A course needs none of that, so a cluster of our own hears only this machine. Ray reads these settings when it
is imported: they must stand in the environment before. A cluster that is joined keeps the settings it has. Week 7.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llmcourse.errors import UserError

NO_OUTSIDE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}     # Ray's word for "loopback only", on Linux too
ALONE = {**NO_OUTSIDE, "RAY_AUTH_MODE": "disabled"}         # nobody else can reach it, so no token in the home folder
ALWAYS = {"RAY_USAGE_STATS_ENABLED": "0",
          "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1"}        # tensors are read where they lie, not pickled
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}      # for actors: many threads fight for cores
TO_ACTORS = ALWAYS | ONE_THREAD                             # where the cluster is not ours, its workers must be told
SHORT = "/tmp"                                              # names of sockets in it must not pass a hundred letters
HERE = ("127.0.0.1", "localhost")
ANSWERS_WITHIN = 5.0                                        # seconds for a cluster's head to take a connection
_started: list[str] = []                                    # folders of what was started here, while it runs
STORE_BYTES = 256 * 2**20                                   # of objects on their way between the actors of a machine


def load_ray(wanted: dict[str, str]) -> Any:
    """The module ``ray``, imported with these settings; UserError when it is missing or was imported without them."""
    late = "ray" in sys.modules and not sys.modules["ray"].is_initialized()
    if late and wanted.items() >= NO_OUTSIDE.items() and not os.environ.items() >= NO_OUTSIDE.items():
        raise UserError("ray was imported before its settings were made, and would listen on every network interface; "
                        "make the RayDriver before anything imports ray")
    os.environ.update({name: value for name, value in wanted.items() if name in NO_OUTSIDE or name not in os.environ})
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed; pip install 'ray>=2.60' (or llmcourse[ray]), or use LocalDriver, "
                        "which needs nothing") from None
    return ray


@dataclass
class Connection:
    """Ray, and whether to ``leave`` it in the end; ``environment`` is what its actors must be told."""

    ray: Any
    leave: bool
    environment: dict[str, str]

    def close(self) -> None:
        """Shut down what was started here; a cluster that was joined is left, one that was there before goes on."""
        if self.leave:
            self.leave = False
            self.ray.shutdown()
            while _started:
                shutil.rmtree(_started.pop(), ignore_errors=True)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(address: str | None = None, cpus: int = 2) -> Connection:
    """Ray as it runs in this process already, or joined at ``address`` ("host:port"), or started on this machine alone.

    Ours counts ``cpus``: a promise between its actors, nothing is measured.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        return Connection(sys.modules["ray"], leave=False, environment={} if _started else TO_ACTORS)
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address is not None:
        ray = load_ray(ALWAYS | _settings_for(address))
        try:
            ray.init(address=address, **quiet)
        except Exception as error:                        # many kinds, and each says the same
            raise UserError(f"no Ray cluster can be joined at {address}: {_first_line(error)}") from None
        return Connection(ray, leave=True, environment=TO_ACTORS)
    ray = load_ray(ALWAYS | ALONE)
    _started.append(tempfile.mkdtemp(prefix="llm", dir=SHORT if os.path.isdir(SHORT) else None))
    with _environment(ONE_THREAD):                        # actors inherit it, this process does not keep it
        _start(ray, num_cpus=cpus, include_dashboard=False, object_store_memory=STORE_BYTES, _temp_dir=_started[-1],
               **quiet)
    connection = Connection(ray, leave=True, environment={})
    atexit.register(connection.close)                     # also for a driver that nobody has closed
    return connection


def _start(ray: Any, **settings: Any) -> None:
    """Ray gives itself 30 s, too few for a machine that is very busy: a second try, and then one clear line."""
    for attempt in (1, 2):
        try:
            ray.init(**settings)
            return
        except Exception as error:                        # a bare Exception, when it "timed out during startup"
            ray.shutdown()
            if attempt == 2:
                shutil.rmtree(_started.pop(), ignore_errors=True)
                raise UserError(f"Ray did not start on this machine, twice: {_first_line(error)}") from None


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _settings_for(address: str) -> dict[str, str]:
    """What a cluster at this address needs to be joined; UserError at once when nobody listens there.

    Of a head on this machine Ray takes 127.0.0.1 to mean the machine's outer address, unless it may know of none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{address!r} is no address of a Ray cluster; give its head's host:port, such as 10.0.0.5:6379")
    try:
        _knock(host, int(port))
    except OSError as error:
        raise UserError(f"no Ray cluster answers at {address} ({error}); start one there with ray start --head, or "
                        "give no address to run on this machine") from None
    try:
        if host in HERE:
            _knock(_outer_address(), int(port))
    except OSError:
        return NO_OUTSIDE
    return {}


def _knock(host: str, port: int) -> None:
    """OSError when nobody listens: Ray itself would try for minutes."""
    socket.create_connection((host, port), ANSWERS_WITHIN).close()


def _outer_address() -> str:
    """The address of this machine that others see; OSError when it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))                   # an address of nobody (RFC 5737): nothing is sent there
        return str(probe.getsockname()[0])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
