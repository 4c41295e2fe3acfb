"""What `llmcourse sim` refuses because it contradicts itself, and what it says when an option has nothing to do."""

import json

import pytest

from llmcourse import cli
from llmcourse.cli.sim import main
from llmcourse.workload import Arrival, write_trace

FEW = ["--requests", "20", "--rate", "4", "--max-prompt", "600"]


@pytest.mark.parametrize(("arguments", "said"), [
    (["--migrate"], "there is one instance"), (["--dispatch", "freeness"], "there is one; give --instances"),
    (["--dispatch", ""], "no dispatcher ''"), (["--instances", "2", "--dispatch", "random:seed=x"], "a whole number"),
    (["--instances", "2", "--migrate", "--memory", "exact"], "only blocks can be sent"),
    (["--host-blocks", "5"], "--preemption recompute never swaps"), (["--link", "5"], "never swaps"),
    (["--admission", "slo"], "give --slo-ttft"), (["--admission", "shedding"], "give --slo-ttft"),
    (["--admission", "backlog"], "backlog needs tokens, a whole number"),
    (["--parking"], "take a preemptive --policy"), (["--autoscale", "kv:most=2.5"], "most is 2.5"),
    (["--autoscale", "kv:fewest=2"], "begin within the bounds"), (["--instances", "3", "--autoscale", "kv:most=2"],
                                                                  "begin within the bounds"),
    (["--autoscale", "slo-debt:sure=1"], "a probability between 0 and 1"),
    (["--autoscale", "predictive:before=3"], "before is 3; it takes a list of numbers"),
    (["--memory", "max:max_length=0"], "max_length is 0 tokens"), (["--memory", "max:max_length=nan"], "is 'nan'"),
    (["--memory", "growing:compaction=maybe"], "it takes True or False"),
    (["--memory", "max:reservation=exact"], "max has no option 'reservation'"),
    (["--gpus", "1000000"], "a pool of 8,583,067,241 blocks"), (["--trace", ""], "names no file"),
    (["--events", "same", "--html", "./same"], "a file of its own"), (["--html", "/proc/x"], "cannot write /proc/x"),
])
def test_contradictions_are_one_clear_line(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sim", *FEW, *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and error.startswith("llmcourse sim: ")


@pytest.mark.parametrize("arguments", [["--requests", "1" + "0" * 30], ["--num-blocks", "1000000000"],
                                       ["--rate", "1e-300"], ["--rate", "1e300"], ["--requests", "٣"]])
def test_numbers_without_measure_are_refused_before_anything_is_made(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_a_trace_has_as_many_requests_as_it_has(tmp_path, capsys):
    path = str(tmp_path / "one.csv")
    write_trace(path, [Arrival(0.0, 100, 20)])
    assert cli.main(["sim", "--trace", path, "--requests", "5"]) == 2
    assert "has 1 request, and --requests asks for 5" in capsys.readouterr().err
    assert main(["--trace", path]) == 0
    said = capsys.readouterr().out
    assert "1 instance, " in said and ": 1 request, all at once" in said
    assert "1 of 1 request finished" in said and "0 preemptions" in said


@pytest.mark.parametrize(("arguments", "note"), [
    (["--policy", "vtc"], "shares between tenants, and all requests are of one"),
    (["--policy", "lpm"], "--memory paged keeps none; give --memory hash or radix"),
    (["--policy", "sjf"], "it reads the true one, as an oracle would"),
    (["--policy", "edf", "--slo-ttft", "1"], "all requests are promised the same"),
    (["--policy", "qlm", "--slo-ttft", "1"], "qlm lets the tighter promise go first"),
    (["--policy", "priority"], "all requests have the same priority"),
    (["--rate", "40"], "--poisson has no ups and downs"),
    (["--policy", "vtc", "--workload", "arena", "--poisson"], ""),
    (["--policy", "lpm", "--memory", "radix", "--poisson"], "")])
def test_what_does_nothing_here_is_named(arguments, note, capsys):
    assert main([*FEW, *arguments, "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert (any(note in each for each in notes) if note else notes == []), notes


def test_notes_stand_in_the_report_too(capsys):
    assert main([*FEW, "--policy", "drr"]) == 0
    assert "\nnote: drr shares between tenants" in capsys.readouterr().out


def test_the_report_says_how_requests_find_their_instance_and_how_many_moved(capsys):
    busy = ["--instances", "4", "--gpu", "A10", "--num-blocks", "700", "--rate", "5", "--requests", "150", "--poisson",
            "--max-prompt", "3000", "--dispatch", "least-requests", "--migrate"]
    assert main([*busy, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["settings"]["dispatch"], told["settings"]["migrate"]) == ("least-requests", "live")
    moved, aborted = told["mechanisms"]["moved"], told["mechanisms"]["aborted_migrations"]
    assert moved > 0 and all(reason and count > 0 for reason, count in aborted.items())
    assert main(busy) == 0
    said = capsys.readouterr().out
    assert "least-requests dispatch, live migration, a fixed fleet" in said
    assert f"moved to other instances: {moved} request" in said


def test_parked_requests_keep_their_kv(capsys):
    crowd = ["--requests", "30", "--rate", "20", "--poisson", "--max-prompt", "400", "--policy", "mlfq",
             "--max-running", "8", "--json"]
    counters = []
    for more in ([], ["--parking"]):
        assert main([*crowd, *more]) == 0
        counters.append(json.loads(capsys.readouterr().out)["mechanisms"]["counters"])
    assert counters[0]["recomputed_tokens"] > 0 == counters[1]["recomputed_tokens"] and counters[1]["parked"] > 0
