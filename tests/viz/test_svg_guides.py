"""Guide lines, notes and bands of plotly in the static picture, on linear and logarithmic axes."""

import re

import plotly.graph_objects as go
import pytest

from llmcourse import viz
from llmcourse.viz.series import guide, log_axis, log_ticks
from llmcourse.viz.theme import canvas, seconds


def drawn(figure):
    return viz.to_svg(figure, "a figure")


def test_lines_and_bands_across_a_plot_are_drawn_with_their_words():
    figure = go.Figure(go.Scatter(x=[0, 10], y=[0, 1]))
    figure.add_hline(y=0.5, line_dash="dash", annotation_text="half")
    figure.add_vline(x=5)
    figure.add_hrect(y0=0.1, y1=0.2, opacity=0.3)
    svg = drawn(figure)
    assert "half" in svg and 'stroke-dasharray="9 6"' in svg and '<g opacity="0.3"><rect' in svg


def test_a_guide_and_its_words_meet_on_a_logarithmic_axis():
    figure = canvas("log", 400)
    figure.add_trace(go.Scatter(x=[0, 1], y=[0.01, 1.0]))
    log_axis(figure, "y", [0.01, 1.0], "latency", seconds)
    guide(figure, "y", 0.1, "SLO")
    svg = drawn(figure)
    line = float(re.search(r'y1="([\d.]+)"[^>]*stroke-dasharray', svg).group(1))
    words = float(re.search(r'<text x="[\d.]+" y="([\d.]+)"[^>]*>SLO<', svg).group(1))
    assert line - 12 < words < line
    assert "100 ms" in svg


@pytest.mark.parametrize(("low", "high", "ticks"), [
    (0.9, 11, [1, 2, 5, 10]), (0.5, 2000, [1, 3, 10, 30, 100, 300, 1000]), (1, 1e6, [10.0**k for k in range(7)]),
])
def test_logarithmic_ticks_are_round_and_neither_few_nor_many(low, high, ticks):
    assert log_ticks(low, high) == pytest.approx(ticks)


def test_a_heading_of_two_lines_ends_where_one_line_would():
    def place(text):
        figure = go.Figure(go.Scatter(x=[0, 1], y=[0, 1]))
        figure.add_annotation(text=text, x=0.5, y=0.5, yanchor="bottom", showarrow=False)
        return float(re.search(r'<text x="[\d.]+" y="([\d.]+)"[^>]*>(?:one|<tspan[^>]*>one)', drawn(figure)).group(1))
    assert place("one<br>two") == pytest.approx(place("one") - 1.2 * 16, abs=0.2)
