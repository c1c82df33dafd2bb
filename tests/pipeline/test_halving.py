"""Successive halving on made-up landscapes, with a clock that attempts move."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.pipeline.halving import Reached, Space, halving

SPACE = Space(
    training={"m.rank": (1, 2, 3, 4), "m.reg": (0.1, 0.2, 0.3)},
    after={"prior.m": (0.0, 0.5, 1.0)},
    effort={"m.epochs": 9},
)
START = {"m.rank": 1, "m.reg": 0.1, "prior.m": 0.0}
BEST = {"m.rank": 3, "m.reg": 0.2, "prior.m": 0.5}


class World:
    """What settings reach, and how long they take; every attempt is kept."""

    def __init__(self, seconds_per_epoch=1.0, judging=1.0):
        self.now, self.attempts, self.trained = 0.0, [], set()
        self.per_epoch, self.judging = seconds_per_epoch, judging

    def attempt(self, settings):
        epochs = settings.get("m.epochs", 9)
        training = (settings["m.rank"], settings["m.reg"], epochs)
        took = self.judging + (self.per_epoch * epochs if training not in self.trained else 0)
        self.trained.add(training)
        self.now += took
        self.attempts.append(settings)
        away = sum(settings[key] != value for key, value in BEST.items())
        value = (1 - 0.2 * away) * (0.5 + epochs / 18)
        return Reached(value, took, self.judging, np.full(4, value), np.ones(4))

    def search(self, seconds, space=SPACE, start=START):
        return halving(space, start, self.attempt, seconds, lambda: self.now, seed=1)


def test_with_time_the_best_settings_are_found():
    world = World()
    found = world.search(1000)
    assert found.settings == BEST
    assert found.reached.value == 1.0
    assert found.before.value == pytest.approx(0.4)
    assert found.n_short == 12  # every training once, the one in use among them
    assert found.n_full + found.n_short == len(world.attempts)
    assert sum("m.epochs" in settings for settings in world.attempts) == 12
    assert all(settings["m.epochs"] == 3 for settings in world.attempts if "m.epochs" in settings)


def test_without_time_the_settings_in_use_are_judged_and_stay():
    world = World()
    found = world.search(0.5)
    assert (found.settings, found.n_full, found.n_short) == (START, 1, 0)
    assert found.reached is found.before


@given(st.floats(1, 300), st.floats(0.1, 3), st.floats(0.1, 3))
@settings(max_examples=60, deadline=None)
def test_the_budget_holds_but_for_the_first_attempt_and_one_more(seconds, per_epoch, judging):
    world = World(per_epoch, judging)
    whole = 9 * per_epoch + judging
    found = world.search(seconds)
    assert world.now <= max(seconds, whole) + whole
    assert found.reached.value >= found.before.value


def test_what_needs_no_training_is_tried_where_there_is_no_time_for_one():
    world = World(seconds_per_epoch=10.0, judging=1.0)
    found = world.search(95.0)  # the first training takes 91
    assert found.settings == {**START, "prior.m": 0.5}
    assert (found.n_full, found.n_short) == (3, 0)


def test_what_needs_no_training_is_tried_by_itself():
    world = World()
    found = world.search(1000, Space({}, SPACE.after, {}))
    assert found.settings["prior.m"] == 0.5
    assert found.n_short == 0
    assert len(world.attempts) == 3


def test_without_an_effort_settings_are_tried_in_full():
    world = World()
    found = world.search(1000, Space(SPACE.training, SPACE.after, {}))
    assert found.settings == BEST
    assert found.n_short == 0
