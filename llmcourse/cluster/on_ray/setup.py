"""Ray, started for us alone or joined by address.

Left to itself Ray listens on every network interface of the machine, writes a token into the home folder and reports
its use. A course needs none of that, so a cluster of our own hears only this machine. Ray reads these settings when it
is imported: they must stand in the environment before. A cluster that is joined keeps the settings it has. Week 7.
"""

from __future__ import annotations

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
ANSWERS_WITHIN = 5.0                                        # seconds for a cluster's head to take a connection
STORE_BYTES = 256 * 2**20


def load_ray(alone: bool) -> Any:
    """The module ``ray``, imported with our settings; UserError when it is missing or was imported without them."""
    wanted = ALWAYS | (ALONE if alone else {})
    loaded = "ray" in sys.modules
    if loaded and alone and os.environ.get(next(iter(NO_OUTSIDE))) != "0" and not sys.modules["ray"].is_initialized():
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
    """Ray, and whether it is ours to shut down; ``folder`` is where ours keeps its files."""

    ray: Any
    ours: bool = False
    folder: str | None = None

    def close(self) -> None:
        """Shut down what was started here; a cluster that was joined, or was there before, goes on."""
        if self.ours:
            self.ray.shutdown()
            self.ours = False
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(address: str | None = None, cpus: int = 2, store_bytes: int = STORE_BYTES) -> Connection:
    """Ray as it runs in this process already, or joined at ``address`` ("host:port"), or started on this machine alone.

    Ours counts ``cpus`` (a promise between its actors, nothing is measured) and keeps objects of up to ``store_bytes``.
    """
    ray = load_ray(alone=address is None)
    if ray.is_initialized():
        return Connection(ray)
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address is None:
        folder = tempfile.mkdtemp(prefix="llm")           # short: the names of sockets are, and lie in it
        with _environment(ONE_THREAD):                    # actors inherit it, this process does not keep it
            ray.init(num_cpus=cpus, include_dashboard=False, object_store_memory=store_bytes, _temp_dir=folder, **quiet)
        return Connection(ray, ours=True, folder=folder)
    _knock(address)
    try:
        ray.init(address=address, **quiet)
    except Exception as error:                            # many kinds, and each says the same
        raise UserError(f"no Ray cluster can be joined at {address}: {_first_line(error)}") from None
    return Connection(ray, ours=True)


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _knock(address: str) -> None:
    """UserError when nobody listens at the address: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{address!r} is no address of a Ray cluster; give its head's host:port, such as 10.0.0.5:6379")
    try:
        socket.create_connection((host, int(port)), ANSWERS_WITHIN).close()
    except OSError as error:
        raise UserError(f"no Ray cluster answers at {address} ({error}); start one there with ray start --head, or "
                        "give no address to run on this machine") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
