"""Widgets without a browser: what a front end would send is set, what it would show is read."""

import json
import re

import pytest

from llmcourse import viz
from llmcourse.errors import UserError
from llmcourse.viz.widget import HERE

from .conftest import served


def explorer():
    shapes = [viz.KVShape("Llama 3 8B", 32, 32, 8, 128, 8.03e9), viz.KVShape("GPT-3", 96, 96, 96, 128, 175e9)]
    return viz.kv_explorer(shapes, {"A100": 80e9, "H200": 141e9})


def test_a_change_from_the_browser_draws_again():
    widget = explorer()
    before = widget.snapshot()
    widget.set_state({"raw": {**widget.raw, "context": 0, "change": 1}})
    after = widget.snapshot()
    assert after.values["context"] == 512 and after.svg != before.svg and after.summary != before.summary
    assert widget.view["change"] == 1 and after.table != before.table


def test_a_change_from_python_moves_the_browsers_control():
    widget = explorer()
    assert "1,048" not in widget.set(context=131072, gpu="H200").summary
    assert widget.raw["context"] == 8 and widget.raw["gpu"] == "H200"
    assert widget.preset("short chats").values["context"] == 512


@pytest.mark.parametrize("wrong", [{"context": 99}, {"context": True}, {"gpu": "abacus"}, {}])
def test_nonsense_from_the_browser_is_said_and_the_picture_stays(wrong):
    widget = explorer()
    before = widget.snapshot()
    sent = {**widget.raw, **wrong, "change": 1} if wrong else {"change": 1}
    widget.set_state({"raw": sent})
    assert widget.view["error"] and widget.view["change"] == 1
    assert widget.snapshot() == before
    widget.set_state({"raw": {**explorer().raw, "change": 2}})
    assert not widget.view["error"]


def test_what_a_view_refuses_is_said_in_the_widget():
    def view(text):
        raise UserError(f"no token in {text!r}")

    with pytest.raises(UserError):
        viz.Explorer("x", view, {"text": viz.Text("text")})


@pytest.mark.parametrize("call", [lambda w: w.set(colour=1), lambda w: w.set(context=3), lambda w: w.preset("none")])
def test_wrong_names_and_values_are_refused(call):
    with pytest.raises(UserError):
        call(explorer())


def test_a_page_without_a_kernel_shows_picture_and_numbers():
    bundle, _ = explorer()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/html"].startswith("<svg") and "<caption>" in bundle["text/html"]
    assert bundle["text/plain"].startswith("KV memory: Llama 3 8B leaves 128 KiB")


def test_presets_and_stops_are_ready_for_the_browser():
    spec = explorer().spec
    context = next(control for control in spec["controls"] if control["name"] == "context")
    assert context["texts"][0] == "512 tokens" and spec["presets"]["short chats"]["context"] == 0


def test_state_is_small():
    assert len(json.dumps(explorer().view)) < 40_000


@pytest.mark.parametrize("name", ["common.js", "widget.js", "player.js", "widget.css"])
def test_nothing_is_imported_or_fetched(name):
    text = (HERE / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|\bimport\b[^.]|fetch\(|@import|url\(", re.sub(r"//.*", "", text))


def test_the_player_holds_every_step_and_stands_where_it_is_told():
    events = served(blocks=20)
    player = viz.EventPlayer(events, step=5)
    steps = [event for event in events if event.kind == "STEP"]
    assert len(player.film["frames"]) == len(player.film["x"]) == len(steps)
    assert player.snapshot().values == {"step": 5}
    assert player.set(step=7).summary.startswith("Step 7:")
    frame, used = player.film["frames"][7], steps[7].data["used_blocks"]
    assert sum(len(blocks) for _, blocks, _ in frame["tables"]) == used
    with pytest.raises(UserError):
        viz.EventPlayer([])


def test_the_ready_made_explorers_draw():
    def look(text, layer, head):
        tokens = text.split()
        return tokens, [[1 / (q + 1) if k <= q else 0 for k in range(len(tokens))] for q in range(len(tokens))]

    seen = viz.attention_explorer(look, layers=2, heads=3).set(text="one two three", head=2)
    assert len(seen.table.rows) == 3
    token = viz.distribution_explorer(["a", "b", "c"], lambda prompt: [len(prompt), 1.0, 0.0], "xy")
    assert token.preset("greedy").summary.startswith("1 of 3 tokens")
    roof = viz.roofline_explorer([viz.Roof("m", 1e12, 1e11)], lambda batch, context: [viz.Point("d", batch * 1e9, 1e9)])
    assert "held by arithmetic" in roof.set(batch=256).summary
    assert "held by memory" in roof.set(batch=1).summary
