"""Instances started as actors, each with its share of CPUs and GPUs: all, or an error that says why not. Week 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmcourse.cluster.on_ray.actor import Build, Card, RayInstance
from llmcourse.cluster.on_ray.remote import RemoteInstance
from llmcourse.errors import UserError

CALLS_AT_ONCE = 8                        # threads of an actor: one waits for news, few others call
STARTS_WITHIN = 180.0                    # seconds for all instances to load their models


@dataclass(frozen=True)
class Recipe:
    """How an instance is made: its engine by ``build()``, on a clock from ``epoch`` (s), with a share of the machine.

    ``cpus`` and ``gpus`` may be parts of one: two instances of half a GPU each share it. ``environment`` holds
    variables for its process.
    """

    build: Build
    epoch: float
    headroom: Mapping[int, float]
    cpus: float
    gpus: float
    environment: Mapping[str, str]


def start_actor(ray: Any, recipe: Recipe, number: int) -> Any:
    """The handle of a new actor, at once: its engine may take long to be there."""
    told = {"runtime_env": {"env_vars": dict(recipe.environment)}} if recipe.environment else {}
    actor = ray.remote(RayInstance).options(num_cpus=recipe.cpus, num_gpus=recipe.gpus, max_concurrency=CALLS_AT_ONCE,
                                            **told)
    return actor.remote(number, recipe.build, recipe.epoch, dict(recipe.headroom))


def start_instances(ray: Any, recipe: Recipe, numbers: Sequence[int]) -> list[RemoteInstance]:
    """An actor of one OpenMP thread for each number.

    UserError when one dies while it starts, or when the cluster has no room for all of them.
    """
    handles = [start_actor(ray, recipe, number) for number in numbers]
    try:
        cards = _cards(ray, handles, f"{recipe.cpus:g} CPUs and {recipe.gpus:g} GPUs")
    except BaseException:
        for handle in handles:
            ray.kill(handle)
        raise
    return [RemoteInstance(ray, *each) for each in zip(numbers, handles, cards, strict=True)]


def _cards(ray: Any, handles: list[Any], share: str) -> list[Card]:
    waiting = [handle.card.remote() for handle in handles]
    while waiting:                                            # one that dies is told at once, whoever still loads
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=STARTS_WITHIN)
        if not ready:
            has = {name: ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU")}
            raise UserError(f"{len(waiting)} of {len(handles)} instances have not started in {STARTS_WITHIN:g} s; each "
                            f"asks for {share}, the whole cluster has {has['CPU']:g} and {has['GPU']:g}")
        card_of(ray, ready[0])
    return [card_of(ray, handle.card.remote()) for handle in handles]


def card_of(ray: Any, reference: Any) -> Card:
    """The card that an actor has been asked for; UserError, with its last words, when it is dead."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise UserError(f"an instance died while it was starting: {lines[-1].strip()}") from None
