"""The real traces, replayed from the first request to the last, when their files are at hand."""

import numpy as np
import pytest

from llmcourse.cluster import VirtualDriver
from llmcourse.engine import Engine
from llmcourse.metrics.ledger import Ledger
from llmcourse.paths import ROOT
from llmcourse.workload import read_trace

FOLDER = ROOT.parent / "shared" / "traces"
SERVICES = {
    "AzureLLMInferenceTrace_code.csv": (8819, 2, "A100 80 GB"),
    "AzureLLMInferenceTrace_conv.csv": (19366, 2, "A100 80 GB"),
    "arena_27clients_10min.csv": (1500, 1, "A10"),
    "mooncake_conversation.jsonl": (12031, 6, "H200"),
}


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the original traces are not here (llmcourse data fetch gets them)")
@pytest.mark.parametrize("name", SERVICES)
def test_a_real_trace_is_served_to_the_last_request(name):
    requests, instances, gpu = SERVICES[name]
    workload = read_trace(FOLDER / name)
    engines = [Engine.simulated("Llama 3 8B", gpu, ledger=Ledger(), token_budget=1024) for _ in range(instances)]
    table = VirtualDriver(engines).run(workload)
    assert len(table) == requests and table.finished.all()
    assert sum(table["output_tokens"]) == sum(arrival.output_tokens for arrival in workload)
    parts = table["queue_time"] + table["prefill_time"] + table["decode_time"] + table["preempted_time"]
    assert np.allclose(parts, table["e2e"], rtol=0, atol=1e-6)
    assert all(engine.idle and engine.pool.num_free == engine.pool.num_blocks for engine in engines)
