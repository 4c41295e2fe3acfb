"""A cluster that somebody else has started is joined by its address, used, and left running."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from llmcourse.cluster.on_ray.setup import ALONE, ALWAYS
from llmcourse.paths import ROOT

RAY = Path(sys.executable).parent / "ray"
JOIN = """
from functools import partial
from llmcourse.cluster import RayDriver
from tests.cluster.on_ray.actors import alone, ask, check_all, engine, tokens_of, wait_for
with RayDriver(partial(engine), 2, address={address!r}) as driver:
    request = driver.add(ask())
    tokens_of(driver, request, 5)
    migration = driver.migrate(request.id, 1 - driver.owner(request.id))
    wait_for(driver, lambda: migration.outcome)
    driver.finish()
    check_all(driver, [request])
    print(migration.outcome)
"""


@pytest.fixture
def address(tmp_path):
    """Where a head of its own listens, on this machine only."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="llm")
    with (tmp_path / "head.log").open("w") as log:
        head = subprocess.Popen([RAY, "start", "--head", "--block", f"--port={port}", "--num-cpus=4",
                                 "--include-dashboard=false", f"--temp-dir={folder}",
                                 "--object-store-memory=100000000"], env=os.environ | ALWAYS | ALONE, stdout=log,
                                stderr=subprocess.STDOUT)
    until = time.monotonic() + 180
    while "Ray runtime started" not in (tmp_path / "head.log").read_text():
        assert head.poll() is None and time.monotonic() < until, (tmp_path / "head.log").read_text()
        time.sleep(0.5)
    yield f"127.0.0.1:{port}"
    family = psutil.Process(head.pid).children(recursive=True)
    head.terminate()                                          # by its number: ray stop would stop everybody's
    head.wait(timeout=60)
    _, left = psutil.wait_procs(family, timeout=20)
    for process in left:
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.nightly
def test_a_cluster_is_joined_by_its_address_and_left_running(address):
    for _ in range(2):                                        # the first to leave leaves it running for the second
        run = subprocess.run([sys.executable, "-c", JOIN.format(address=address)], cwd=ROOT, capture_output=True,
                             text=True, timeout=200, env=os.environ | {"RAY_AUTH_MODE": "disabled"})
        assert run.returncode == 0, run.stderr[-2000:]
        assert run.stdout.split()[-1] == "moved"
