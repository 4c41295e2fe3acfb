"""One Ray for all tests of this folder, for it takes ten seconds to start. Tests make instances as they need them."""

import os

import pytest

from llmcourse.cluster import Rebalance
from llmcourse.cluster.on_ray.setup import connect
from llmcourse.errors import UserError
from tests.cluster.on_ray.actors import cluster


@pytest.fixture(scope="session")
def ray_here():
    """Ray on this machine, joined by every `RayDriver`; without Ray tests are skipped, but in CI they fail."""
    try:
        connection = connect(cpus=8)
    except UserError as error:
        pytest.fail(str(error)) if os.environ.get("CI") else pytest.skip(str(error))
    with connection:
        yield connection.ray


@pytest.fixture(scope="session")
def mocked(ray_here):
    """A driver of mocked engines that moves nothing by itself, unless one is drained; tests may kill instances."""
    with cluster(rebalance=Rebalance(below=float("-inf"))) as driver:
        yield driver
