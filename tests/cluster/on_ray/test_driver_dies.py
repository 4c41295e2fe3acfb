"""When the driver dies, everything that it has started on its machine ends by itself."""

import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from llmcourse.paths import ROOT

DRIVE = """
import psutil, time
from llmcourse.cluster.on_ray import setup
from tests.cluster.on_ray.actors import ask, cluster, tokens_of
driver = cluster(1)
tokens_of(driver, driver.add(ask()), 5)
family = psutil.Process().children(recursive=True)
print(setup._started[0], driver.remotes[0].process, *(process.pid for process in family), flush=True)
{end}
"""


@pytest.mark.nightly
@pytest.mark.parametrize("end", ["time.sleep(600)", "raise SystemExit"], ids=["killed", "never closed"])
def test_nothing_of_it_is_left(end):
    driver = subprocess.Popen([sys.executable, "-c", DRIVE.format(end=end)], cwd=ROOT, stdout=subprocess.PIPE,
                              text=True)
    folder, actor, *numbers = driver.stdout.readline().split()
    started = [int(number) for number in numbers]
    assert len(started) >= 4, "the head's processes, and an actor"
    if end.startswith("time"):
        driver.kill()
    driver.wait(timeout=60)
    left = [psutil.Process(number) for number in started if psutil.pid_exists(number)]
    _, engines = psutil.wait_procs([process for process in left if process.pid == int(actor)], timeout=20)
    assert engines == [], "the engine ends at once"
    _, left = psutil.wait_procs(left, timeout=180)
    assert left == [], "Ray's own processes take a minute to notice"
    assert Path(folder).exists() == end.startswith("time"), "only who was killed leaves files"
    shutil.rmtree(folder, ignore_errors=True)
