"""Learning rates against Darknet's recorded ones, and the shapes of the others."""

import numpy as np
import pytest
import tensorflow as tf

from official.core.config import Constant, Cosine, Steps
from official.optimization.schedules import build_schedule

BURN_IN = {"length": {"steps": 100}}


def rates(config, numbers, total: int = 1000) -> np.ndarray:
    schedule = build_schedule(config, total, lambda duration: duration.in_steps(8, 80))
    return np.array([schedule(tf.constant(int(number), tf.int64)).numpy() for number in numbers])


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("steps_burnin", {"burn_in": BURN_IN}),
        ("steps_burnin_power1", {"burn_in": BURN_IN | {"power": 1.0}}),
    ],
)
def test_steps_and_burn_in_are_darknets(golden, name, config):
    recorded = np.load(golden("misc/learning_rate.npz"))
    drops = [{"at": {"steps": 400}, "scale": 0.1}, {"at": {"steps": 450}, "scale": 0.1}]
    steps = Steps(learning_rate=0.001, drops=drops, **config)
    np.testing.assert_allclose(rates(steps, recorded["batch_num"]), recorded[name], rtol=1e-6)


def test_constant_with_burn_in_is_darknets(golden):
    recorded = np.load(golden("misc/learning_rate.npz"))
    constant = Constant(learning_rate=0.001, burn_in={"length": {"steps": 20}})
    np.testing.assert_allclose(rates(constant, recorded["batch_num"]), recorded["constant"], rtol=1e-6)


def test_burn_in_is_power_four_from_the_first_update_and_the_drop_is_at_its_step():
    steps = Steps(learning_rate=1.0, burn_in={"length": {"steps": 10}}, drops=[{"at": {"steps": 20}, "scale": 0.1}])
    seen = rates(steps, [1, 5, 9, 10, 19, 20])
    np.testing.assert_allclose(seen, [1e-4, 0.0625, 0.6561, 1.0, 1.0, 0.1], rtol=1e-6)


def test_cosine_falls_from_full_rate_after_burn_in_to_its_final_fraction():
    cosine = Cosine(learning_rate=2.0, final_fraction=0.1, burn_in={"length": {"steps": 10}, "power": 1})
    seen = rates(cosine, [5, 10, 55, 100], total=100)
    np.testing.assert_allclose(seen, [1.0, 2.0, 2.0 * (0.1 + 0.9 * 0.5), 0.2], rtol=1e-5)


def test_durations_of_a_schedule_may_be_epochs():
    steps = Steps(learning_rate=1.0, drops=[{"at": {"epochs": 3}, "scale": 0.5}])  # 10 steps an epoch
    np.testing.assert_allclose(rates(steps, [29, 30]), [1.0, 0.5])
