"""The course's model on two actors: requests move, one actor dies, and tokens are those of one undisturbed engine.

Small here; `llmcourse bench ray_streams` is the same with 200 streams, and runs nightly.
"""

import pytest

from benchmarks.ray_streams import main, serve, undisturbed


def test_tokens_are_those_of_one_undisturbed_engine(ray_here):
    jobs, expected = undisturbed(40, seed=5)
    run = serve(jobs, rate=40.0, every=0.15, kill_after=0.7)
    assert run.tokens == expected and all(stream.ended for stream in run.streams)
    assert run.repeated == run.lost == 0 and run.moved >= 1 and run.deaths == 1
    assert run.kv_bytes > 0 and any(stream.orphaned for stream in run.streams)


@pytest.mark.nightly
def test_two_hundred_streams(ray_here, capsys):
    assert main([]) == 0
    print(capsys.readouterr().out)
