"""Restated learning rates against Darknet's and PyTorch's recorded ones, and against the product's schedules."""

import json

import numpy as np
import pytest
import tensorflow as tf

from official.core.config import Adam, Cosine, Random, Sgd, Sgdr, Steps
from official.optimization.schedules import build_schedule
from official.optimization.warm_up import build_warm_up
from reproduction.restated.schedules import learning_rate, pace
from tests.official.optimization.test_schedules import POLICIES, schedule_of


def in_steps(duration) -> int:
    return duration.in_steps(8, 80)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_is_darknets(golden, name):
    """Its options are float, and so is its result."""
    recorded = np.load(golden("misc/learning_rate.npz"))
    numbers, config = recorded["batch_num"], schedule_of(POLICIES[name])
    assert (numbers >= 1).sum() == len(numbers) - 1  # the first update has number 1
    ours = [learning_rate(config, int(number), 1000, in_steps) for number in numbers if number >= 1]
    np.testing.assert_allclose(ours, recorded[name][numbers >= 1], rtol=1e-6, atol=0)


WAITING = [{"at": {"steps": 30}, "scale": 0.1}, {"at": {"epochs": 2}, "scale": 0.5}]
MORE = {
    "drops that wait": {"type": "steps", "drops": WAITING},
    "restarts of one length": {"type": "sgdr", "cycle": {"steps": 4}, "multiplier": 1, "minimum": 0.0},
    "growing restarts": {"type": "sgdr", "cycle": {"steps": 7}, "multiplier": 3, "minimum": 0.0005},
    "cosine": {"type": "cosine", "final_fraction": 0.1, "burn_in": {"length": {"steps": 10}, "power": 1}},
    "cosine held": {"type": "cosine", "held": {"epochs": 1}},
    "cosine held after burn-in": {"type": "cosine", "held": {"steps": 7}, "burn_in": {"length": {"steps": 10}}},
    "one restart after the run": {"type": "sgdr", "cycle": {"steps": 60}},
    "burn-in all along": {"type": "cosine", "burn_in": {"length": {"steps": 60}}},
}


@pytest.mark.parametrize("name", [*MORE, *POLICIES])
def test_every_policy_is_the_products(name):
    config = schedule_of((MORE | POLICIES)[name])
    theirs = build_schedule(config, 60, in_steps, 0)
    for step in range(1, 61):
        ours = learning_rate(config, step, 60, in_steps)
        np.testing.assert_allclose(ours, theirs(tf.constant(step, tf.int64)), rtol=1.2e-7, atol=1e-12)


def test_an_epochs_cosine_is_pytorchs(shared):
    """WongKinYiu's lf: the rate that an epoch's warm-up goes to."""
    schedules = json.loads((shared / "golden_wongkinyiu/schedule_v7.json").read_text())["schedules"]
    curved = [one for one in schedules if not one["linear"]]
    assert curved
    for one in curved:
        epochs, steps = one["epochs"], 5
        config = Cosine(learning_rate=one["lr0"], final_fraction=one["lrf"], held={"steps": steps})
        ours = [learning_rate(config, n, epochs * steps, in_steps) for n in range(1, epochs * steps + 1)]
        np.testing.assert_allclose(ours, np.repeat(one["lr0"] * np.array(one["lf"]), steps), rtol=1e-12)


def test_a_step_is_at_its_drop_from_the_first_update_on():
    config = Steps(learning_rate=1.0, burn_in={"length": {"steps": 10}}, drops=[{"at": {"steps": 20}, "scale": 0.1}])
    seen = [learning_rate(config, step, 100, in_steps) for step in (1, 5, 9, 10, 19, 20)]
    np.testing.assert_allclose(seen, [1e-4, 0.0625, 0.6561, 1.0, 1.0, 0.1], rtol=1e-12)


@pytest.mark.parametrize(("cycle", "multiplier", "minimum"), [(7, 2, 1e-5), (10, 3, 0.002), (4, 1, 0.0), (60, 2, 1e-5)])
def test_warm_restarts_are_the_papers(cycle, multiplier, minimum):
    """A loop that restarts by counting (Loshchilov and Hutter 2017, equation 5); a cycle ends at its minimum."""
    expected, since, length = [], 0, cycle
    for _ in range(60):
        since += 1
        expected.append(minimum + 0.5 * (0.01 - minimum) * (1 + np.cos(np.pi * since / length)))
        if since == length:
            since, length = 0, length * multiplier
    sgdr = Sgdr(learning_rate=0.01, cycle={"steps": cycle}, multiplier=multiplier, minimum=minimum)
    ours = [learning_rate(sgdr, step, 60, in_steps) for step in range(1, 61)]
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_random_rates_are_refused():
    with pytest.raises(NotImplementedError, match="policy random draws each rate"):
        learning_rate(Random(learning_rate=1.0), 1, 10, in_steps)


@pytest.mark.parametrize("config", [Adam(), Sgd(), Sgd(warm_up={"length": {"epochs": 1}})])
def test_the_pace_is_the_products(config):
    for step in range(1, 15):
        ours = pace(config, step, 0.25, in_steps)
        theirs = build_warm_up(config, in_steps)(tf.constant(step, tf.int64), tf.constant(0.25))
        np.testing.assert_allclose(ours[:2], theirs[:2], rtol=1.2e-7)
        assert (ours.momentum is None) == (theirs.momentum is None)
        if ours.momentum is not None:
            np.testing.assert_allclose(ours.momentum, theirs.momentum, rtol=1.2e-7)
