"""Learning rates against Darknet's recorded ones, policy by policy, and the shapes of the others."""

import numpy as np
import pytest
import tensorflow as tf

from official.core.config import Constant, Cosine, Policy, Random, Sgdr, Steps
from official.optimization.schedules import build_schedule
from tests.official.core.toy_task import toy_trainer

BURN_IN = {"length": {"steps": 100}}
DROPS = [{"at": {"steps": 400}, "scale": 0.1}, {"at": {"steps": 450}, "scale": 0.1}]
MORE_DROPS = [{"at": {"steps": at}, "scale": scale} for at, scale in ((1, 0.1), (100, 10), (500, 0.1), (900, 0.1))]
POLICIES = {  # of each recorded cfg, whose max_batches is 1000
    "steps_burnin": {"type": "steps", "burn_in": BURN_IN, "drops": DROPS},
    "steps_burnin_power1": {"type": "steps", "burn_in": BURN_IN | {"power": 1.0}, "drops": DROPS},
    "steps_neg": {"type": "steps", "drops": MORE_DROPS},  # steps=-1: from the first update on
    "sgdr": {"type": "sgdr", "burn_in": {"length": {"steps": 50}}, "cycle": {"steps": 100}},
    "sgdr_default": {"type": "sgdr", "cycle": {"steps": 1000}},
    "poly": {"type": "poly"},
    "constant": {"type": "constant", "burn_in": {"length": {"steps": 20}}},
    "exp": {"type": "exp", "gamma": 0.99},
    "step": {"type": "step", "every": {"steps": 100}, "scale": 0.5},
    "sig": {"type": "sigmoid", "gamma": 0.01, "middle": {"steps": 500}},
    "cosine_unknown": {"type": "constant"},
}


def schedule_of(values: dict) -> Policy:
    """As a configuration file would give it."""
    return toy_trainer(schedule={"learning_rate": 0.001} | values).schedule


def rates(config, numbers, total: int = 1000, seed: int = 0) -> np.ndarray:
    schedule = build_schedule(config, total, lambda duration: duration.in_steps(8, 80), seed)
    of_all = tf.function(lambda steps: tf.map_fn(schedule, steps, fn_output_signature=tf.float32), autograph=False)
    return of_all(tf.constant(np.asarray(numbers), tf.int64)).numpy()


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_is_darknets(golden, name):
    recorded = np.load(golden("misc/learning_rate.npz"))
    numbers = recorded["batch_num"]
    updates = numbers >= 1  # the first update has number 1
    ours = rates(schedule_of(POLICIES[name]), numbers[updates])
    np.testing.assert_allclose(ours, recorded[name][updates], rtol=1e-6, atol=0)
    assert updates.sum() == len(numbers) - 1


def test_all_recorded_policies_are_checked(golden):
    recorded = {name[4:] for name in np.load(golden("misc/learning_rate.npz")).files if name.startswith("cfg/")}
    assert recorded == set(POLICIES)


def test_burn_in_is_power_four_from_the_first_update_and_the_drop_is_at_its_step():
    steps = Steps(learning_rate=1.0, burn_in={"length": {"steps": 10}}, drops=[{"at": {"steps": 20}, "scale": 0.1}])
    seen = rates(steps, [1, 5, 9, 10, 19, 20])
    np.testing.assert_allclose(seen, [1e-4, 0.0625, 0.6561, 1.0, 1.0, 0.1], rtol=1e-6)


def test_a_drop_waits_for_those_before_it():
    """Darknet stops at the first of `steps` that is still ahead, whatever comes after it in the list."""
    drops = [{"at": {"steps": 30}, "scale": 0.1}, {"at": {"steps": 20}, "scale": 0.5}]
    seen = rates(Steps(learning_rate=1.0, drops=drops), [19, 20, 29, 30])
    np.testing.assert_allclose(seen, [1.0, 1.0, 1.0, 0.05], rtol=1e-6)


def test_a_restart_is_after_the_cycles_last_step_and_cycles_of_one_length_go_on():
    sgdr = Sgdr(learning_rate=1.0, cycle={"steps": 4}, multiplier=1, minimum=0.0)
    half = (1 + np.cos(np.pi / 4)) / 2
    np.testing.assert_allclose(
        rates(sgdr, [1, 2, 4, 5, 8, 9, 12], total=12), [half, 0.5, 0, half, 0, half, 0], atol=1e-7
    )


def test_random_rates_follow_from_seed_and_step_and_are_distributed_as_powers_of_uniform_ones():
    config, numbers = Random(learning_rate=0.5, power=2.0), np.arange(1, 4001)
    seen = rates(config, numbers)
    np.testing.assert_array_equal(seen[1000:1010], rates(config, numbers[1000:1010]))
    assert (seen != rates(config, numbers, seed=1)).mean() > 0.99
    uniform = np.sort(np.sqrt(seen / 0.5))
    assert np.abs(uniform - np.linspace(0, 1, len(uniform))).max() < 0.03


def test_a_constant_rate_is_float32_of_it():
    assert rates(Constant(learning_rate=0.001), [1, 10**9]).tolist() == [np.float32(0.001)] * 2


def test_cosine_falls_from_full_rate_after_burn_in_to_its_final_fraction():
    cosine = Cosine(learning_rate=2.0, final_fraction=0.1, burn_in={"length": {"steps": 10}, "power": 1})
    seen = rates(cosine, [5, 10, 55, 100], total=100)
    np.testing.assert_allclose(seen, [1.0, 2.0, 2.0 * (0.1 + 0.9 * 0.5), 0.2], rtol=1e-5)


def test_durations_of_a_schedule_may_be_epochs():
    steps = Steps(learning_rate=1.0, drops=[{"at": {"epochs": 3}, "scale": 0.5}])  # 10 steps an epoch
    np.testing.assert_allclose(rates(steps, [29, 30]), [1.0, 0.5])
