"""When the driver dies, everything that it has started on its machine ends by itself; requests go on under another."""

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from llmcourse.cluster import RoundRobin
from llmcourse.paths import ROOT
from tests.cluster.on_ray.actors import ask, at_least, check_all, cluster, tokens_of

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


class Picky(RoundRobin):
    """Lets nobody in who begins with 9."""

    def choose(self, request, number, reports):
        return None if request.prompt[0] == 9 else super().choose(request, number, reports)


def test_requests_go_on_under_another_driver_that_has_the_streams_and_the_books(mocked):
    at_least(mocked, 2)
    with cluster(1, dispatch=Picky()) as old:
        lives, waits = old.add(ask(id="lives")), old.add(ask((9, 1), 20, id="waits"))
        tokens_of(old, lives, 10)
        kept = pickle.loads(pickle.dumps((old.fleet.books, old.gateway.streams)))
    mocked.recover(*kept)
    assert [request.id for request in mocked.fleet.held] == ["waits"]
    assert len(mocked.tokens("lives")) >= 10 and mocked.owner("lives") is not None
    mocked.finish()
    check_all(mocked, [lives, waits])


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
