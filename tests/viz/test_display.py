import plotly.graph_objects as go
import pytest

from llmcourse import viz
from llmcourse.errors import UserError
from llmcourse.viz.display import PLOTLY, Numbers
from llmcourse.viz.theme import TEMPLATE, letter


def figure():
    return go.Figure(go.Scatter(x=[0, 1], y=[2, 3], mode="lines"))


@pytest.mark.parametrize("alt", ["", "   ", None])
def test_a_figure_without_alternative_text_is_refused(alt):
    with pytest.raises(UserError, match="alternative text"):
        viz.show(figure(), alt=alt)


def test_a_picture_has_plotly_for_the_lab_svg_for_pages_and_text_for_the_rest():
    bundle = viz.picture(figure(), alt="It rises <fast>.")._repr_mimebundle_()
    assert set(bundle) == {PLOTLY, "text/html", "text/plain"}
    assert bundle[PLOTLY]["config"]["modeBarButtonsToRemove"] == ["sendChartToCloud"]
    assert bundle["text/html"].startswith("<svg") and "<script" not in bundle["text/html"]
    assert "It rises &lt;fast&gt;." in bundle["text/html"]
    assert bundle["text/plain"] == "It rises <fast>."


def test_a_plain_plotly_figure_gets_the_courses_look():
    assert viz.picture(figure(), alt="x").figure.layout.template.layout.font.size == TEMPLATE.layout.font.size


def test_the_numbers_are_an_accessible_table():
    shown = viz.kv_calculator(viz.KVShape("m", 2, 4, 2, 8, 1e6), 1e9, 100)
    html = Numbers("Found.", viz.table(shown))._repr_mimebundle_()["text/html"]
    assert "<caption>" in html and html.count('<th scope="col">') == 5 and "Found." in html


def test_show_displays_both(capsys):
    viz.show(figure(), alt="It rises.")
    assert "It rises." in capsys.readouterr().out


def test_letters_go_on_after_z():
    assert [letter(i) for i in (0, 25, 26, 27, 701, 702)] == ["A", "Z", "AA", "AB", "ZZ", "AAA"]


def test_an_unknown_trace_is_named_and_shown_in_words():
    pie = go.Figure(go.Pie(values=[1]))
    with pytest.raises(UserError, match="pie"):
        viz.to_svg(pie, "x")
    assert "All of it." in viz.picture(pie, alt="All of it.")._repr_mimebundle_()["text/html"]


def test_names_as_places_and_missing_places_are_drawn():
    bars = go.Figure([go.Bar(x=["FCFS", "SJF"], y=[3, 1]), go.Scatter(y=[1, 2])])
    svg = viz.to_svg(bars, "SJF is lower.")
    assert "FCFS" in svg and "SJF" in svg
    assert bars.data[0].x == ("FCFS", "SJF")
