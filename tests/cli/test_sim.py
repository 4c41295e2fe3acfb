"""`llmcourse sim`: a workload served in virtual time, its report, its files, and one clear line for bad input."""

import json
import subprocess
import sys

import numpy as np
import pytest

from llmcourse import cli
from llmcourse.cli.sim import main, parser
from llmcourse.cli.sim_run import Setup, machine, make_policy, serve
from llmcourse.errors import UserError
from llmcourse.metrics.table import COLUMNS
from llmcourse.workload import Arrival, write_trace

SMALL = ["--requests", "30", "--rate", "4", "--max-prompt", "600"]


@pytest.fixture
def answer(capsys):
    """Runs the command with --json and reads what it says."""
    def run(*arguments):
        assert main([*SMALL, *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)
    return run


@pytest.fixture
def trace(tmp_path):
    """Two tenants, one of which asks for twice as much."""
    path = tmp_path / "trace.csv"
    write_trace(path, [Arrival(i / 4, 100, 20, "heavy" if i % 3 else "light") for i in range(24)])
    return str(path)


def test_the_report_reads_like_a_dashboard(capsys):
    assert main([*SMALL, "--slo-ttft", "1", "--slo-tpot", "0.05"]) == 0
    out = capsys.readouterr().out
    for part in ("Llama 2 7B on A100 80 GB", "30 of 30 requests finished", "vllm:time_to_first_token_seconds",
                 "of 30 requests within their SLO", "per million output tokens", "assumed:", "vllm:kv_cache_usage_perc",
                 "requests per wall second"):
        assert part in out


def test_the_same_seed_gives_the_same_run_and_another_seed_another(answer):
    first, again, other = (answer("--seed", seed)["summary"] for seed in ("1", "1", "2"))
    assert first == again and first != other


def test_json_says_what_was_asked_and_what_came_of_it(answer):
    said = answer("--policy", "sjf", "--batching", "continuous", "--token-budget", "256", "--num-blocks", "500")
    assert said["settings"]["policy"] == "sjf" and said["settings"]["num_blocks"] == 500
    assert said["summary"]["finished"] == 30 and said["summary"]["ttft"]["samples"] == 30
    assert said["attainment"]["requests"] == 0 and said["load"]["requests"] == 30
    assert 0 < said["utilisation"]["busy"] <= 1


def test_a_poisson_load_and_a_slower_machine(answer):
    fast, slow = (answer("--poisson", "--gpu", gpu)["summary"]["e2e"]["mean"] for gpu in ("H100 SXM", "A10"))
    assert slow > 2 * fast


def test_measured_steps(answer):
    said = answer("--cost", "table", "--model", "Llama 2 70B")
    assert said["settings"]["hardware"] == "8 x A100 80 GB" and said["summary"]["finished"] == 30


def test_a_trace_at_its_own_rate_and_at_another(trace, capsys):
    rates = []
    for more in ([], ["--rate", "8"]):
        assert main(["--trace", trace, "--json", *more]) == 0
        rates.append(json.loads(capsys.readouterr().out)["load"]["offered_rate"])
    assert rates == pytest.approx([4.0, 8.0])


def test_tenants_are_shown_when_there_are_several(trace, capsys):
    assert main(["--trace", trace, "--requests", "12"]) == 0
    out = capsys.readouterr().out
    assert "heavy" in out and "light" in out and "Jain's index of service 0.900 over 2 tenants" in out


def test_instances_share_the_load_in_turn(answer):
    one, three = answer()["summary"], answer("--instances", "3")
    assert three["utilisation"]["instances"] == 3 and three["summary"]["finished"] == 30
    assert three["summary"]["e2e"]["mean"] < one["e2e"]["mean"]


@pytest.mark.parametrize("instances", [1, 2])
def test_events_and_meter_tell_the_same(instances):
    arrivals = [Arrival(i / 5, 200, 30) for i in range(20)]
    served = machine("Llama 2 7B", "A100 80 GB", 1, "roofline", 200)
    kept, metered = (serve(Setup(served, instances=instances, keep_events=keep), arrivals) for keep in (True, False))
    rows = [np.argsort(outcome.table["id"]) for outcome in (kept, metered)]       # by arrival, or by instance
    for name in COLUMNS:
        np.testing.assert_array_equal(kept.table[name][rows[0]], metered.table[name][rows[1]])
    assert kept.utilisation.as_dict() == pytest.approx(metered.utilisation.as_dict())
    assert metered.events == [] and len({event.instance for event in kept.events}) == instances
    assert [event.time for event in kept.events] == sorted(event.time for event in kept.events) or instances == 1
    assert {event.request for event in kept.events if event.request} == set(kept.table["id"])


def test_files_are_written(tmp_path, capsys):
    events, chrome, page = tmp_path / "e.jsonl", tmp_path / "c.json", tmp_path / "p.html"
    assert main([*SMALL, "--instances", "2", "--events", str(events), "--chrome-trace", str(chrome),
                 "--html", str(page)]) == 0
    log = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    assert sum(event["kind"] == "FINISHED" for event in log) == 30 and {event["instance"] for event in log} == {0, 1}
    assert len([e for e in json.loads(chrome.read_text())["traceEvents"] if e["ph"] == "b"]) == 30
    text = page.read_text(encoding="utf-8")
    assert text.count("<section>") == 5 and "vllm:time_to_first_token_seconds" in text
    assert "<script src" not in text and "Where the time of the first 30 requests went" in text
    assert "wrote" in capsys.readouterr().err


def test_overload_is_shed_at_the_door(answer):
    """Far above what one A10 carries: all are late, or some are sent away and the others are in time."""
    load = ("--gpu", "A10", "--requests", "120", "--rate", "20", "--poisson", "--slo-ttft", "2")
    everybody, some = (answer(*load, "--admission", rule) for rule in ("all", "slo"))
    assert everybody["summary"]["shed"] == 0 and some["summary"]["shed"] > 20
    assert some["attainment"]["both"] > everybody["attainment"]["both"]
    assert some["summary"]["ttft"]["p99"] < 2.5 < everybody["summary"]["ttft"]["p99"]


def test_policies_take_options():
    assert make_policy("round-robin:quantum=7").quantum == 7


@pytest.mark.parametrize("arguments, part", [
    (["--policy", "nobody"], "no policy 'nobody'"), (["--policy", "sjf:a"], "name:option=value"),
    (["--policy", "sjf:a=1"], "--policy sjf:a=1"), (["--model", "GPT-9"], "GPT-9"), (["--gpu", "abacus"], "abacus"),
    (["--workload", "nothing"], "no workload profile"), (["--admission", "bouncer"], "no admission rule 'bouncer'"),
    (["--admission", "backlog"], "--admission backlog"), (["--trace", "missing.csv"], "missing.csv"),
    (["--trace", "x", "--poisson"], "--poisson"), (["--num-blocks", "3"], "--max-prompt"),
    (["--model", "Llama 3 70B"], "weights"), (["--instances", "31", "--requests", "30"], "31 instances"),
    (["--events", "no/such/folder/x"], "cannot write"), (["--cost", "table"], "nobody measured"),
])
def test_bad_input_is_one_clear_line(arguments, part, capsys):
    assert cli.main(["sim", *arguments]) == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1 and error.startswith("llmcourse sim: ")


@pytest.mark.parametrize("arguments", [["--rate", "0"], ["--rate", "nan"], ["--requests", "0"], ["--requests", "x"],
                                       ["--seed", "-1"], ["--batching", "none"], ["--bogus"],
                                       ["--trace", "x", "--workload", "arena"]])
def test_slips_on_the_command_line_are_one_line_and_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_help_needs_nothing_heavy():
    parser()
    code = ("import sys; from llmcourse.cli import sim; sim.parser(); "
            "assert not {'torch', 'numpy', 'pandas', 'plotly'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_kinds_of_memory_differ_in_what_they_let_in(answer):
    tight = ["--num-blocks", "256", "--rate", "20"]
    running = {kind: answer(*tight, "--memory", kind)["utilisation"]["batch"]
               for kind in ("paged", "exact", "max:max_length=2048")}
    assert running["paged"] >= running["exact"] > 1.5 * running["max:max_length=2048"]


def test_a_prefix_cache_and_a_swap_are_counted(answer, capsys):
    mooncake = ["--workload", "mooncake-conversation", "--rate", "1", "--num-blocks", "4000"]
    found = answer(*mooncake, "--memory", "radix")["mechanisms"]
    assert found["prefix_hit_rate"] > 0.1 and found["counters"]["hit_tokens"] > 0
    tight = ["--num-blocks", "100", "--rate", "20", "--preemption", "swap"]
    swapped = answer(*tight, "--link", "30")["mechanisms"]["counters"]
    assert swapped["swapped_out_blocks"] == swapped["swapped_in_blocks"] > 0 == swapped["recomputed_tokens"]
    assert main([*SMALL, *tight]) == 0
    assert "swapped out: " in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "said"), [
    (["--memory", "heap"], "no memory 'heap'; there are paged, hash, radix, max, exact, growing"),
    (["--memory", "max"], 'reservation "max" needs max_length'),
    (["--memory", "exact:fit=worst"], "fit 'worst'"),
    (["--preemption", "swap", "--num-blocks", "2"], "more KV than an instance gives one of them")])
def test_memory_that_cannot_be(arguments, said):
    with pytest.raises(UserError, match=said):
        main([*SMALL, *arguments])
