"""Memory over time: slots upwards, steps to the right, one band for every request.

In contiguous memory a request is one band from its first step to its last, as high as what is set aside for it; the
white between the bands is external fragmentation as soon as nobody waiting fits into it. In paged memory the same
requests are a mosaic, and little of it is white. Week 6.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.viz.filming import Moment
from llmcourse.viz.parking import KINDS, letters_of
from llmcourse.viz.theme import INK, canvas, colour, finish, letter

MOST = 4000                              # rectangles; more of them nobody tells apart
Box = tuple[str, str, int, int, int, int]      # owner, kind, slots from and to, steps from and to


def memory_history(moments: Sequence[Moment], title: str = "KV memory over time") -> go.Figure:
    """One film (`viz.film`) as a picture: who held which slots in which step.

        memory_history(film(engine, arrivals), "Reserve the maximum")

    Raises:
        UserError: an empty film, or too much to draw.
    """
    if not moments:
        raise UserError("the film is empty: make it with film(engine, workload)")
    boxes = _boxes(moments)
    if len(boxes) > MOST:
        raise UserError(f"this film has {len(boxes)} places to draw, {MOST} can be: film fewer requests")
    letters = letters_of({"": moments})
    capacity = moments[0].num_blocks * moments[0].block_size
    blocks = moments[0].num_blocks if moments[0].block_size > 1 else 0
    figure = canvas(title, min(max(460, 170 + 16 * blocks), 1000), barmode="overlay")       # room for letters
    for kind in KINDS:
        figure.add_trace(_trace(kind, [box for box in boxes if box[1] == kind], letters))
    figure.update_layout(
        xaxis={"range": [moments[0].step, moments[-1].step + 1], "title": {"text": "step"}, "showgrid": False},
        yaxis={"range": [0, capacity], "title": {"text": "slot"}, "showgrid": False})
    return finish(figure, _finding(moments), ("step", "in memory", "waiting", *vars(moments[0].waste)),
                  [(m.step, len(m.places), len(m.waiting), *vars(m.waste).values()) for m in moments])


def _boxes(moments: Sequence[Moment]) -> list[Box]:
    """Slots of one kind that stay so for some steps, as rectangles."""
    boxes: list[Box] = []
    alive: dict[tuple[str, str, int, int], int] = {}         # since which step
    for moment in moments:
        now = {(place.owner, stretch.kind, stretch.start, stretch.end)
               for place in moment.places for stretch in place.stretches(moment.block_size)}
        for key in alive.keys() - now:
            boxes.append((*key, alive.pop(key), moment.step))
        for key in now - alive.keys():
            alive[key] = moment.step
    return sorted([*boxes, *((*key, since, moments[-1].step + 1) for key, since in alive.items())])


def _trace(kind: str, boxes: list[Box], letters: dict[str, int]) -> go.Bar:
    style, paints = KINDS[kind], [colour(letters[box[0]]) for box in boxes]
    look: dict[str, object] = {"color": paints, "line": {"color": INK, "width": 0.4}}
    if style.pattern:
        look["pattern"] = {"shape": style.pattern, "fillmode": "overlay", "fgcolor": INK, "fgopacity": 1, "size": 8,
                           "solidity": 0.18}
    longest: dict[str, int] = defaultdict(int)
    for owner, _, low, high, start, end in boxes:            # the letter stands once, where there is most room for it
        longest[owner] = max(longest[owner], (end - start) * (high - low))
    marks = [letter(letters[owner]) if (end - start) * (high - low) == longest[owner] else ""
             for owner, _, low, high, start, end in boxes]
    return go.Bar(
        x=[(start + end) / 2 for *_, start, end in boxes], width=[end - start for *_, start, end in boxes],
        base=[box[2] for box in boxes], y=[box[3] - box[2] for box in boxes], name=style.name, marker=look, text=marks,
        textposition="inside", insidetextanchor="middle", insidetextfont={"color": INK, "size": 14}, textangle=0,
        constraintext="none", hoverinfo="text",
        hovertext=[f"{letter(letters[owner])} ({owner}), steps {start} to {end - 1}: {high - low} slots, {style.name}"
                   for owner, _, low, high, start, end in boxes])


def _finding(moments: Sequence[Moment]) -> str:
    steps = [(after.step - before.step, before) for before, after in pairwise(moments)]
    total = sum(count for count, _ in steps) or 1
    used = sum(count * before.waste.shares["used"] for count, before in steps) / total
    most = max(len(moment.places) for moment in moments)
    return (f"{moments[-1].step} steps: at most {most} requests are in memory at once, and on average {used:.0%} of "
            f"{moments[0].waste.capacity} slots hold tokens.")
