"""Profiles: a generated load has its trace's quantiles, rates and burstiness; the originals give what ships."""

import json
import tracemalloc
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from llmcourse.errors import UserError
from llmcourse.paths import ROOT
from llmcourse.workload import INTERACTIVE, Poisson, hit_rate, profile, profile_names, read_trace
from llmcourse.workload.derive import as_table, derive, dispersion, rank_correlation, write_profile
from llmcourse.workload.originals import ORIGINALS
from llmcourse.workload.profiles import FOLDER, read_profile

SHARED = ROOT.parent / "shared" / "traces"
PERCENTILES = np.arange(0.10, 0.995, 0.01)
# From the traces' owners and the papers that measured them, not from our own files.
KNOWN = {
    "azure-code": (2.57, 13.2, {0.1: 147, 0.5: 1469, 0.9: 5188, 0.99: 7436}, {0.1: 7, 0.5: 13, 0.9: 55, 0.99: 251}),
    "azure-conversation": (5.53, 1.09, {0.1: 207, 0.5: 1020, 0.9: 2734, 0.99: 4142},
                           {0.1: 54, 0.5: 129, 0.9: 424, 0.99: 601}),
    "mooncake-conversation": (3.40, 1.0, {0.1: 964, 0.5: 6909, 0.9: 27367, 0.99: 85400},
                              {0.1: 24, 0.5: 350, 0.9: 597, 0.99: 1119}),
    "arena": (2.50, 1.10, {0.1: 5, 0.5: 40, 0.9: 432, 0.99: 902}, {0.1: 18, 0.5: 211, 0.9: 513, 0.99: 785}),
}


@pytest.fixture(scope="module", params=sorted(KNOWN))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def load(name):
    """As many arrivals as the trace has."""
    return profile(name).generate(profile(name).requests, seed=7)


def column(load, field):
    return np.array([getattr(arrival, field) for arrival in load])


def test_four_ship():
    assert profile_names() == sorted(KNOWN) == sorted(ORIGINALS)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 50_000


def test_each_names_its_source_and_licence(name):
    known = profile(name)
    assert known.licence in ("CC-BY-4.0", "Apache-2.0")
    assert "/" in known.source


def test_what_ships_says_what_is_known(name):
    rate, cv, prompts, outputs = KNOWN[name]
    shipped = profile(name)
    assert shipped.rate == pytest.approx(rate, rel=0.01)
    assert shipped.gap_cv == pytest.approx(cv, rel=0.02)
    assert shipped.prompts.quantile(list(prompts)) == pytest.approx(list(prompts.values()), rel=0.01)
    assert shipped.outputs.quantile(list(outputs)) == pytest.approx(list(outputs.values()), rel=0.01)


@pytest.mark.parametrize(("field", "grid"), [("prompt_tokens", "prompts"), ("output_tokens", "outputs")])
def test_a_generated_load_has_the_quantiles(name, load, field, grid):
    expected = getattr(profile(name), grid).quantile(PERCENTILES)
    assert np.quantile(column(load, field), PERCENTILES) == pytest.approx(expected, rel=0.05)


def test_a_generated_load_follows_the_series_of_rates(name, load):
    series, times = profile(name).series, column(load, "time")
    assert len(load) == sum(series.counts)
    per_bin = np.bincount((times / series.width).astype(int), minlength=len(series.counts))
    assert per_bin.tolist() == list(series.counts)
    ten = np.bincount((times // 10).astype(int))
    assert ten.var() / ten.mean() == pytest.approx(profile(name).dispersion, rel=0.05)


def test_a_generated_load_is_as_bursty(name, load):
    gaps = np.diff(column(load, "time"))
    assert gaps.std() / gaps.mean() == pytest.approx(profile(name).gap_cv, rel=0.05)


def test_lengths_hang_together_as_in_the_trace(name):
    load = profile(name).generate(20_000, seed=3)
    found = rank_correlation(column(load, "prompt_tokens"), column(load, "output_tokens"))
    assert found == pytest.approx(profile(name).rank_correlation, abs=0.03)


def test_gaps_alone_lose_the_busy_minutes():
    """The renewal process has the trace's gaps; only the series of rates has its dispersion."""
    conversation = profile("azure-conversation")
    times = conversation.gaps.times(np.random.default_rng(0), 50_000)
    assert np.quantile(np.diff(times), 0.9) == pytest.approx(0.4207, rel=0.05)
    assert dispersion(times) < 0.5 * conversation.dispersion


def test_prompts_share_blocks_as_in_the_trace():
    mooncake = profile("mooncake-conversation")
    load = mooncake.generate(mooncake.requests, seed=0)
    assert mooncake.sharing.hit_rate == pytest.approx(0.366, abs=0.001)
    assert hit_rate(load) == pytest.approx(0.366, abs=0.03)
    assert all(len(arrival.prefix) == -(-arrival.prompt_tokens // 512) for arrival in load)
    assert {arrival.prefix[0] for arrival in load} == {0}


def test_tenants_have_their_shares():
    arena = profile("arena")
    load = arena.generate(30_000, seed=0)
    shares = Counter(arrival.tenant for arrival in load)
    assert len(arena.tenants) == 27
    assert shares.most_common(1)[0][0] == "2"
    for tenant, share in arena.tenants.items():
        assert shares[tenant] / len(load) == pytest.approx(share, abs=0.01)


def test_a_rate_scales_time_and_nothing_else(name):
    slow, fast = (profile(name).generate(2000, 1, rate=rate) for rate in (2.0, 8.0))
    assert column(slow, "time") == pytest.approx(4 * column(fast, "time"))
    assert (column(slow, "prompt_tokens") == column(fast, "prompt_tokens")).all()
    whole = profile(name)
    assert whole.requests / whole.generate(whole.requests, 1, rate=8.0)[-1].time == pytest.approx(8, rel=0.02)


def test_another_process_keeps_the_lengths():
    conversation = profile("azure-conversation")
    load = conversation.generate(5000, 1, process=Poisson(3), slo=INTERACTIVE)
    assert load[-1].time == pytest.approx(5000 / 3, rel=0.05)
    assert np.median(column(load, "prompt_tokens")) == pytest.approx(1020, rel=0.05)
    assert {arrival.slo for arrival in load} == {INTERACTIVE}


def test_a_stream_is_the_list_and_the_seed_decides(name):
    one = profile(name)
    assert list(one.stream(3000, 5)) == one.generate(3000, 5)
    assert one.generate(3000, 5) != one.generate(3000, 6)
    times = [arrival.time for arrival in one.stream(40_000, 5)]
    assert times == sorted(times)
    assert len(times) == 40_000
    assert one.generate(0, 5) == []


def test_a_long_stream_needs_no_more_memory():
    def peak(count):
        tracemalloc.start()
        for _ in profile("azure-conversation").stream(count, 1):
            pass
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(20_000) * 1.5 > peak(60_000)


def test_a_stream_begins_at_once():
    assert len(list(islice(profile("arena").stream(10**12, 0), 5))) == 5


@pytest.mark.parametrize("wrong", [{"count": -1}, {"rate": 0}, {"rate": -1}, {"rate": float("nan")}, {"seed": -1},
                                   {"rate": 1.0, "process": Poisson(1)}])
def test_a_load_that_cannot_be_is_refused_when_asked(wrong):
    with pytest.raises(UserError):
        profile("arena").stream(**{"count": 1, "seed": 0, **wrong})


def test_an_unknown_profile_names_what_there_is():
    with pytest.raises(UserError, match="no workload profile 'azure-conv'; there is"):
        profile("azure-conv")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"levels": [0, 1]}'])
def test_a_broken_profile_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json is not a workload profile"):
        read_profile(tmp_path / "x.json")


def test_a_profile_survives_the_disk(name, tmp_path):
    write_profile(profile(name), tmp_path / "copy.json")
    assert (tmp_path / "copy.json").read_text() == (FOLDER / f"{name}.json").read_text()
    assert read_profile(tmp_path / "copy.json") == profile(name)


@pytest.fixture(scope="module")
def trace(name):
    """The original, where it is at hand."""
    if not SHARED.is_dir():
        pytest.skip("the original traces are not here (../shared/traces)")
    return read_trace(SHARED / ORIGINALS[name].file)


def test_the_originals_give_what_ships(name, trace):
    derived = as_table(derive(name, trace, ORIGINALS[name]))
    assert json.loads(json.dumps(derived)) == json.loads((FOLDER / f"{name}.json").read_text())


def test_a_generated_load_is_like_the_original(name, load, trace):
    for field in ("prompt_tokens", "output_tokens"):
        expected = np.quantile(column(trace, field), PERCENTILES)
        assert np.quantile(column(load, field), PERCENTILES) == pytest.approx(expected, rel=0.05)
    ten = [np.bincount((column(one, "time") // 10).astype(int))[:60] for one in (trace, load)]
    assert abs(ten[0] - ten[1]).max() <= 1, "one at the very end counts to the last full width"
