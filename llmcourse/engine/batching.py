"""Three ways to fill a step, from the oldest to today's.

- ``static``: a batch is formed, computed and closed until the last of it ends; then the next. Prompts are computed at
  once whatever the token budget says. What every server did before 2022.
- ``continuous``: requests join and leave between any two steps (iteration-level scheduling, Orca, Yu et al., 2022).
  Prompts go first and whole, in steps of their own, as in early vLLM; but two such steps never follow one another while
  somebody is decoding, so that a stream of new prompts cannot starve running requests.
- ``mixed``: whoever decodes gets its token, then started prompts get a chunk, then new ones, all in one step and under
  one token budget (chunked prefill, Sarathi-Serve, Agrawal et al., 2024; vLLM v1, 2025).

Each is a function that hands out tokens through a `Step`, which looks after budget, blocks and preemption. Week 4.
"""

from collections.abc import Callable, Sequence

from llmcourse.engine.request import Request
from llmcourse.engine.step import Step

WHOLE = 1 << 62                          # no limit: the prompt at once


def static(step: Step) -> None:
    """Go on with the batch until all of it has ended; only then form the next."""
    if step.scheduler.running:
        _go_on(step)
        step.full = True                                  # whatever is free: nobody is let in before the last has ended
    else:
        while (request := step.first_waiting()) and step.admit(request, WHOLE):
            pass


def continuous(step: Step) -> None:
    """Whole prompts first, in a step of their own, but never two such steps in a row while somebody is decoding."""
    if not (step.scheduler.last_step_filled and step.scheduler.running):
        step.make_way()
        while request := step.first_waiting():
            # A prompt above the budget must still be served: it gets a step to itself.
            if (request.pending > step.budget and step.counts) or not step.admit(request, WHOLE):
                break
    if not step.counts:
        _go_on(step)


def mixed(step: Step) -> None:
    """Decodes first, then prompts under way, then new ones: chunks fill what is left of the budget."""
    favourites: list[Request] = []                        # each gets its share first, but leaves every decode its token
    while favourite := step.make_way():
        admitted = step.admit(favourite, step.budget - len(step.scheduler.running) + len(favourites))
        favourites.append(favourite)
        step.preempted_any = False
        if not (admitted and step.scheduler.preemption.parking):      # where it costs KV, one change a step is enough
            break
    _go_on(step, favourites)
    if step.preempted_any:
        return                                            # no room for those who run, so none for newcomers
    while (newcomer := step.first_waiting()) and step.admit(newcomer, step.budget):
        pass


def _go_on(step: Step, served: Sequence[Request] = ()) -> None:
    """A token for each who decodes, then a chunk for each prompt under way but those ``served`` already."""
    prompts = list(step.scheduler.filling)
    step.give_each_one([request for request in step.running() if request not in prompts])
    for request in prompts:
        if request not in served:
            step.give(request, min(request.pending, step.budget))


BATCHING: dict[str, Callable[[Step], None]] = {"static": static, "continuous": continuous, "mixed": mixed}
