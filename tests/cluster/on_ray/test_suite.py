"""The migration checks of every world, on Ray: instances are processes, and who is killed really dies."""

import pytest

from llmcourse.cluster import METHODS
from llmcourse.cluster.orders import Adopt, Copy, Stop
from tests.cluster import suite
from tests.cluster.on_ray.actors import at_least


@pytest.fixture
def pair(mocked):
    at_least(mocked, 2)
    for instance in mocked.alive[2:]:
        mocked.kill(instance.number)
    return mocked


@pytest.mark.parametrize("method", METHODS)
def test_a_request_moves_and_its_client_notices_nothing(pair, method):
    suite.moves_unseen(pair, method)


def test_a_live_copy_goes_on_while_it_decodes(pair):
    suite.copies_while_decoding(pair)


def test_a_request_given_up_in_mid_copy_leaves_nothing(pair):
    suite.given_up_in_mid_copy(pair)


def test_a_request_that_ends_in_mid_copy_leaves_nothing(pair):
    suite.ends_in_mid_copy(pair)


@pytest.mark.parametrize(("stage", "side"), ((Copy, "source"), (Stop, "destination"), (Adopt, "source")))
def test_whoever_dies_at_whatever_stage_nothing_is_lost(pair, stage, side):
    suite.is_undone(pair, stage, side)
