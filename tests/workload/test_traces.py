"""Trace files: four formats in, our own out; what is not sound is refused with file, row and column."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.paths import ROOT
from llmcourse.workload import SLO, Arrival, cut_prompts, read_trace, write_trace

SHARED = ROOT.parent / "shared" / "traces"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
MOONCAKE = '{"timestamp": 0, "input_length": 900, "output_length": 5, "hash_ids": [0, 1]}\n'
OWN = "time,prompt_tokens,output_tokens,tenant,priority,ttft_slo,tpot_slo,predicted,session,prefix\n"


@pytest.fixture
def file(tmp_path):
    """Writes text into a file and returns its path."""
    def write(text: str | bytes, name: str = "t.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path
    return write


def test_azure(file):
    load = read_trace(file(AZURE + "2023-11-16 23:59:59.5000000,374,44\n2023-11-17 00:00:01.7500000,396,109"))
    assert load == [Arrival(0.0, 374, 44), Arrival(2.25, 396, 109)]


def test_azure_with_a_zone_blank_lines_and_windows_endings(file):
    text = "\ufeff" + AZURE + "2024-05-10 00:00:00.009930+00:00,1,1\n\n2024-05-10 01:00:01.009930+01:00,2,2\n"
    assert read_trace(file(text.replace("\n", "\r\n")))[1] == Arrival(1.0, 2, 2)


def test_the_arena_has_tenants(file):
    load = read_trace(file("arrival_s,client,prompt_len,output_len\n0.0,13,13,199\n0.207938,2,36,137\n"))
    assert load == [Arrival(0.0, 13, 199, "13"), Arrival(0.207938, 36, 137, "2")]


def mooncake(*ticks: int) -> str:
    return "".join(MOONCAKE.replace('"timestamp": 0', f'"timestamp": {tick}') for tick in ticks)


def test_mooncakes_ticks_are_spread_up_to_the_next(file):
    path = file(mooncake(*[0] * 50, *[3000] * 50, *[9000] * 50), "m.jsonl")
    times = [arrival.time for arrival in read_trace(path)]
    assert times == sorted(times)
    assert len(set(times)) == 150
    assert all(0 <= time < 3 for time in times[:50])
    assert all(3 <= time < 7.5 for time in times[50:100])
    assert max(times[:50]) > 2.5
    assert times == [arrival.time for arrival in read_trace(path, jitter=0)]
    assert times != [arrival.time for arrival in read_trace(path, jitter=1)]
    assert [arrival.time for arrival in read_trace(path, jitter=None)] == [0.0] * 50 + [3.0] * 50 + [9.0] * 50


def test_a_clock_that_does_not_repeat_is_left_alone(file):
    assert [arrival.time for arrival in read_trace(file(mooncake(5, 17, 40), "m.jsonl"))] == [0, 0.012, 0.035]


def test_lengths_and_blocks_are_cut_together(file):
    path = file(MOONCAKE, "m.jsonl")
    assert read_trace(path)[0].prefix == (0, 1)
    assert read_trace(path, max_prompt=512)[0] == Arrival(0.0, 512, 5, prefix=(0,))
    assert read_trace(path, max_prompt=600)[0] == Arrival(0.0, 600, 5, prefix=(0, 1))
    assert read_trace(path, max_prompt=900) == read_trace(path)
    with pytest.raises(UserError, match="leave at least 1"):
        cut_prompts([], 0)


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
arrivals = st.builds(
    Arrival, st.floats(0, 1e9), st.integers(1, 10**6), st.integers(1, 10**6), names, st.integers(-5, 5),
    st.none() | st.builds(SLO, st.floats(1e-6, 1e6), st.none() | st.floats(1e-6, 1e6)),
    st.none() | st.integers(0, 10**6), st.none() | names.filter(bool),
    st.lists(st.integers(0, 10**9), max_size=3).map(tuple))


@given(st.lists(arrivals, min_size=1, max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_as_it_was(tmp_path, load):
    load.sort(key=lambda arrival: arrival.time)
    path = tmp_path / "own.csv"
    assert write_trace(path, iter(load)) == len(load)
    assert read_trace(path) == load


A1, A2 = "2023-11-16 18:00:00,10,5\n", "2023-11-16 18:00:01,10,5\n"
M2 = MOONCAKE.replace('"timestamp": 0', '"timestamp": 9')


@pytest.mark.parametrize(("text", "says"), [
    ("", "t.csv is empty"),
    (" \n\n", "t.csv is empty"),
    (AZURE, "a header and no rows"),
    ("TIMESTAMP,ContextTokens\n", "row 1: column GeneratedTokens is missing"),
    ("time,size\n1,2\n", "row 1: column prompt_tokens, .* is missing"),
    ("a,b\n1,2\n", "no trace has columns a, b; known are Azure CSV: TIMESTAMP"),
    (AZURE + A1 + "2023-11-16 18:00:01,10\n", "row 3: 2 cells where the header names 3 columns"),
    (AZURE + A1 + "2023-11-16 18:00:01,,5\n", "row 3, column ContextTokens: nothing; a whole number of 1 or more"),
    (AZURE + A1 + "2023-11-16 18:00:01,-7,5\n", "row 3, column ContextTokens: '-7'"),
    (AZURE + A1 + "2023-11-16 18:00:01,nan,5\n", "row 3, column ContextTokens: 'nan'"),
    (AZURE + A1 + "2023-11-16 18:00:01,7.5,5\n", "row 3, column ContextTokens: '7.5'"),
    (AZURE + A1 + "2023-11-16 18:00:01,1_000,5\n", "column ContextTokens: '1_000'"),
    (AZURE + A1 + f"2023-11-16 18:00:01,{'9' * 50},5\n", r"column ContextTokens: '9{36}\.\.\.;"),
    (AZURE + A1 + "2023-11-16 18:00:01,7,0\n", "row 3, column GeneratedTokens: '0'"),
    (AZURE + "yesterday,7,1\n", "row 2, column TIMESTAMP: 'yesterday'; a date and time is needed, such as 2023"),
    (AZURE + A2 + A1, "row 3, column TIMESTAMP: '2023-11-16 18:00:00'; earlier than the row above"),
    ("arrival_s,client,prompt_len,output_len\nnan,1,1,1\n", "row 2, column arrival_s: 'nan'; a time of 0 or more"),
    ("arrival_s,client,prompt_len,output_len\n-1,1,1,1\n", "row 2, column arrival_s: '-1'"),
    ("arrival_s,client,prompt_len,output_len\ninf,1,1,1\n", "row 2, column arrival_s: 'inf'"),
    (MOONCAKE + '{"timestamp": 5, "input_\n', "row 2: broken JSON"),
    (MOONCAKE + "[1, 2]\n", "row 2: .1, 2.; each line must be one JSON object"),
    (MOONCAKE + '{"timestamp": 5}\n', "row 2: column input_length, output_length, hash_ids is missing"),
    (M2 + MOONCAKE, "row 2, column timestamp: 0; earlier than the row above"),
    (MOONCAKE.replace("900", "NaN"), "row 1, column input_length: nan"),
    (MOONCAKE.replace("900", "true"), "row 1, column input_length: True"),
    (MOONCAKE.replace("900", "9e2"), "row 1, column input_length: 900.0"),
    (MOONCAKE.replace("[0, 1]", '"0 x"'), "row 1, column hash_ids: '0 x'; a list of whole numbers"),
    (MOONCAKE.replace("[0, 1]", "[0, 1.5]"), "row 1, column hash_ids"),
    (MOONCAKE.replace("[0, 1]", "7"), "row 1, column hash_ids: 7"),
    (MOONCAKE.replace('"timestamp": 0', '"timestamp": null'), "row 1, column timestamp: nothing"),
    (OWN + "0,1,1,,high,,,,,\n", "row 2, column priority: 'high'"),
    (OWN + "0,1,1,,0,0,,,,\n", "row 2, column ttft_slo: '0'; a number of seconds above 0"),
    (OWN + "0,1,1,,0,,,-2,,\n", "row 2, column predicted: '-2'"),
    (b"\x1f\x8b\x08\x00\xff", "is not text in UTF-8; .*unpack"),
])
def test_what_is_not_sound_is_refused_in_one_line(file, text, says):
    with pytest.raises(UserError, match=says) as caught:
        read_trace(file(text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_says_how_to_get_one(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(UserError, match=f"{re.escape(str(path))} cannot be read .*llmcourse data fetch"):
            read_trace(path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the original traces are not here (../shared/traces)")
@pytest.mark.parametrize(("name", "rows", "seconds"), [
    ("AzureLLMInferenceTrace_code.csv", 8819, 3435.948), ("AzureLLMInferenceTrace_conv.csv", 19366, 3501.722),
    ("mooncake_conversation.jsonl", 12031, 3537), ("arena_27clients_10min.csv", 1500, 600)])
def test_the_originals(name, rows, seconds):
    load = read_trace(SHARED / name)
    assert len(load) == rows
    assert load[0].time < 3
    assert load[-1].time == pytest.approx(seconds, abs=3)
