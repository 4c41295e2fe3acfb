"""Random lives of a cluster whose processes really die: whatever dies when, no client loses, repeats or awaits a token.

Starting an instance takes seconds, so the ordinary suite lives 3 of these lives, the nightly one 50 (pytest -m nightly)
"""

import os
import random
import signal

import pytest

from llmcourse.cluster import METHODS
from llmcourse.engine import EventKind, Request, SamplingParams
from llmcourse.errors import UserError
from tests.cluster.on_ray.actors import alone, ask, at_least, check_all


class Life:
    """Requests, migrations of every kind, aborts, and one death at a random moment, drawn from one seed."""

    def __init__(self, driver, seed):
        self.driver, self.dice = driver, random.Random(seed)
        self.requests, self.migrations = [], []

    def live(self):
        """Everything that comes is served; returns the stage in which the dead was, if it was in any."""
        dice, driver, stage = self.dice, self.driver, None
        dies_at = dice.randint(20, 150)
        for moment in range(200):
            if len(self.requests) < 12 and dice.random() < 0.4:
                self._arrive()
            if dice.random() < 0.5:
                self._migrate()
            if dice.random() < 0.02:
                self._abort()
            if moment >= dies_at and stage is None:
                stage = self._kill(last=moment == 199)
            driver.advance()
        driver.finish()
        check_all(driver, self.requests)
        assert all(migration.outcome for migration in self.migrations)
        return stage

    def _arrive(self):
        prompt = [self.dice.randrange(1, 4) for _ in range(self.dice.randint(1, 60))]
        self.requests.append(self.driver.add(Request(prompt, SamplingParams(max_tokens=self.dice.randint(1, 160),
                                                                            ignore_eos=True, seed=1))))

    def _living(self):
        return [request.id for request in self.requests if self.driver.owner(request.id) is not None]

    def _migrate(self):
        names, dice = self._living(), self.dice
        if names:
            try:
                self.migrations.append(self.driver.migrate(
                    dice.choice(names), dice.choice(self.driver.alive).number, dice.choice(list(METHODS))))
            except UserError:
                pass                                          # it is there already, or one of both is busy

    def _abort(self):
        names = self._living()
        if names:
            try:
                self.driver.abort(self.dice.choice(names))
            except UserError:
                pass                                          # it has ended, and word of it has not come yet

    def _kill(self, last):
        """Kill a party of a migration under way, at whatever stage it is; or anyone, when none is for too long."""
        under_way = [migration for migration in self.migrations if migration.outcome is None]
        if not under_way and not last:
            return None
        moving = self.dice.choice(under_way) if under_way else None
        victim = (getattr(moving, self.dice.choice(("source", "destination"))) if moving
                  else self.dice.choice(self.driver.alive).number)
        if self.dice.random() < 0.5:
            os.kill(self.driver.remotes[victim].process, signal.SIGKILL)   # and nobody says so
        else:
            self.driver.kill(victim)
        return moving.order.name if moving and moving.order else "between"


def live(driver, lives):
    """So many lives on the same instances; in which stages somebody died."""
    stages, moved, died = [], 0, 0
    for seed in lives:
        at_least(driver, 3)
        life = Life(driver, seed)
        stages.append(life.live())
        moved += sum(migration.outcome == "moved" for migration in life.migrations)
        faults = sum(event.kind is EventKind.FAULT for event in driver.events)
        assert faults >= died + (stages[-1] is not None), "somebody died in this life"
        died = faults
        assert not driver.failed, "two instances are left, and can serve everything"
    assert moved >= len(lives), "migrations succeed too"
    return stages


def test_nothing_is_lost_in_a_few_lives(mocked):
    assert None not in live(mocked, range(3))


@pytest.mark.nightly
def test_nothing_is_lost_in_fifty_lives(mocked):
    stages = live(mocked, range(100, 150))
    assert None not in stages and len(set(stages)) >= 5
    print({stage: stages.count(stage) for stage in set(stages)})


def test_an_instance_whose_engine_fails_is_dead_and_says_why(mocked):
    at_least(mocked, 2)
    whole, broken = mocked.add(ask((1, 2))), mocked.add(ask((13, 2)))
    mocked.finish()
    assert "no instance is left" in mocked.failed[broken.id], "it takes every instance with it"
    assert mocked.tokens(whole.id) == alone(whole)[:len(mocked.tokens(whole.id))]
    faults = [event.data["reason"] for event in mocked.events if event.kind is EventKind.FAULT]
    assert not mocked.alive and all("fallen off the bus" in reason for reason in faults[-2:])
    with pytest.raises(UserError, match="none of the 0 instances"):
        mocked.add(ask())
