"""An engine refuses settings, requests and arrivals that mean nothing, before anything runs."""

import math

import pytest

from llmcourse.engine import Engine, Request, SamplingParams, replay
from llmcourse.errors import UserError
from llmcourse.policies import SJF
from llmcourse.workload import Arrival


@pytest.mark.parametrize(("options", "said"), [
    ({"policy": "sjf"}, r"POLICIES\['sjf'\]\(\)"), ({"policy": SJF}, "give one that is made"),
    ({"admission": "slo"}, "give a rule that is made"), ({"batching": "all"}, "batching 'all'"),
    ({"token_budget": 1.5}, "token_budget is 1.5; it takes a whole number"),
    ({"max_running": "x"}, "max_running is 'x'"), ({"max_running": 2.5}, "max_running is 2.5"),
    ({"num_blocks": math.nan}, "num_blocks is nan"), ({"num_blocks": 10**12}, "at most 16,777,216"),
    ({"block_size": 0}, "give at least 1"), ({"block_size": 1.5}, "block_size is 1.5"),
    ({"host_blocks": "x"}, "host_blocks is 'x'"), ({"parking": "x"}, "parking is 'x'"),
    ({"spare": "x"}, "spare is 'x'"),
    ({"link": math.nan}, "link is nan"), ({"link": "x"}, "link is 'x'")])
def test_settings(options, said):
    with pytest.raises(UserError, match=said):
        Engine.simulated(**options)


@pytest.mark.parametrize("options", [{"predicted": math.nan}, {"predicted": "x"}, {"priority": math.nan},
                                     {"priority": "x"}, {"arrival": math.nan}])
def test_numbers_that_have_no_place_in_an_order(options):
    engine = Engine.simulated(policy=SJF())
    with pytest.raises(UserError, match=f"{next(iter(options))} of request '.*' is .*; it takes a number"):
        engine.add(Request([1, 2, 3], SamplingParams(max_tokens=4), **options))
    assert engine.idle and not engine.requests


@pytest.mark.parametrize("arrival", [(0, 1.5, 5), (0, math.nan, 5), (0, "x", 5), ("x", 5, 5), (0, 5, 5.5)])
def test_arrivals(arrival):
    with pytest.raises(UserError, match="tokens are whole numbers"):
        replay(Engine.simulated(), [Arrival(*arrival)])
