import json
from collections import defaultdict
from itertools import pairwise

from llmcourse import viz

from .conftest import served


def by_phase(trace):
    found = defaultdict(list)
    for entry in trace["traceEvents"]:
        found[entry["ph"]].append(entry)
    return found


def test_steps_never_overlap_on_one_track(tight):
    found = by_phase(viz.chrome_trace(tight))
    tracks = defaultdict(list)
    for entry in found["X"]:
        tracks[entry["pid"], entry["tid"]].append((entry["ts"], entry["ts"] + entry["dur"]))
    assert len(found["X"]) == sum(event.kind == "STEP" for event in tight)
    for spans in tracks.values():
        spans.sort()
        assert all(end <= start + 1e-6 for (_, end), (start, _) in pairwise(spans))


def test_every_request_begins_and_ends_once_with_its_own_id(tight):
    found = by_phase(viz.chrome_trace(tight))
    assert sorted(e["id"] for e in found["b"]) == sorted(e["id"] for e in found["e"]) == [f"0:r{n}" for n in range(8)]
    start = {e["id"]: e["ts"] for e in found["b"]}
    end = {e["id"]: e["ts"] for e in found["e"]}
    assert all(start[e["id"]] <= e["ts"] <= end[e["id"]] for e in found["n"])
    assert sum(e["args"]["event"] == "new_tokens" for e in found["n"]) == 8


def test_preemptions_and_counters_are_there(tight):
    found = by_phase(viz.chrome_trace(tight))
    assert len(found["i"]) == sum(event.kind == "PREEMPTED" for event in tight)
    assert max(e["args"]["used"] for e in found["C"] if e["name"] == "kv_blocks") <= 16
    assert {e["name"] for e in found["M"]} == {"process_name", "thread_name"}


def test_a_log_cut_short_still_closes_its_requests(tight):
    found = by_phase(viz.chrome_trace(tight[:30]))
    assert len(found["b"]) == len(found["e"])


def test_it_is_written_as_json_in_order_of_time(tmp_path):
    path = viz.write_chrome_trace(served(), tmp_path / "trace.json")
    entries = [e for e in json.loads(path.read_text())["traceEvents"] if e["ph"] != "M"]
    assert [e["ts"] for e in entries] == sorted(e["ts"] for e in entries)
    assert all(e["ts"] >= 0 for e in entries)
