"""SGD as PyTorch's YOLOs train by it: three groups, two warm-ups, Nesterov; against the restated step."""

import numpy as np
import pytest
import tensorflow as tf

from official.core.config import Adam, Cosine, Sgd
from official.core.config_io import ConfigError, check_config
from official.core.layer_rules import weight_rules
from official.optimization.optimizers import apply_gradients
from official.optimization.schedules import build_schedule
from official.optimization.warm_up import build_warm_up
from reproduction.restated import optimisers
from reproduction.restated.training import train_step
from tests.official.core.toy_task import ToyTask, make_run, toy_trainer, trained, weights

KINDS = ("kernel", "gamma", "beta", "bias")
EPOCHS, STEPS = 3, 7  # of an epoch
WARM, BIAS_RATE, LOW = 9, 0.1, 0.8
RATE, FINAL, MOMENTUM, DECAY = 0.01, 0.2, 0.937, 0.05


def to_steps(duration) -> int:
    return duration.in_steps(4, 4 * STEPS)


def restated(config, cosine, start, gradients) -> list[dict[str, np.ndarray]]:
    """Weights after each step, in float64; tests/reproduction/restated hold this against PyTorch's loop and record."""
    groups = optimisers.groups([f"x/{name}" for name in start], [weight.ndim for weight in start.values()])
    trainer = toy_trainer(duration={"epochs": EPOCHS}, optimizer=config, schedule=cosine)
    weights, history = list(start.values()), []
    slots = optimisers.slots_at_start(config, weights)
    for step, given in enumerate(gradients, start=1):
        done = train_step(trainer, [list(given.values())], weights, [], slots, [], groups, step, to_steps)
        weights, slots = done.weights, done.slots
        history.append(dict(zip(start, weights, strict=True)))
    return history


@pytest.mark.parametrize(("dtype", "bound"), [(tf.float64, 3e-7), (tf.float32, 3e-6)])
def test_sgd_with_warm_ups_nesterov_and_an_epochs_cosine_is_pytorchs(dtype, bound):
    """Rates and momentum are float32 in a run; so is the bound in float64, of the way that a weight has gone."""
    rng = np.random.default_rng(5)
    start = {name: rng.normal(size=shape) for name, shape in zip(KINDS, ([3, 2], [5], [5], [2]), strict=True)}
    gradients = [{name: rng.normal(size=w.shape) for name, w in start.items()} for _ in range(EPOCHS * STEPS)]
    warm_up = {"length": {"steps": WARM}, "bias_learning_rate": BIAS_RATE, "momentum": LOW}
    config = Sgd(momentum=MOMENTUM, weight_decay=DECAY, nesterov=True, warm_up=warm_up)
    cosine = Cosine(learning_rate=RATE, final_fraction=FINAL, held={"epochs": 1})
    rate_at = build_schedule(cosine, EPOCHS * STEPS, to_steps, 0)
    pace_at = build_warm_up(config, to_steps)
    values = [tf.constant(start[name], dtype) for name in KINDS]
    slots = {"momentum": [tf.zeros_like(value) for value in values]}
    for number, expected in enumerate(restated(config, cosine, start, gradients), start=1):
        step = tf.constant(number, tf.int64)
        pace = pace_at(step, rate_at(step))
        rates = [pace.rate, pace.rate, pace.bias_rate, pace.bias_rate]
        given = [tf.constant(gradients[number - 1][name], dtype) for name in KINDS]
        decayed = [name == "kernel" for name in KINDS]
        values, slots = apply_gradients(config, values, given, slots, decayed, rates, step, pace.momentum)
        for name, value in zip(KINDS, values, strict=True):
            way = max(np.abs(expected[name] - start[name]).max(), np.abs(start[name]).max())
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=bound * way, err_msg=f"{name} at {number}")


def test_the_first_update_moves_biases_alone(tmp_path):
    """Of a real run: kernels and scales wait at rate 0, biases and offsets go at their own."""
    warm_up = {"length": {"steps": 4}, "bias_learning_rate": 0.1}
    optimizer = {"type": "sgd", "weight_decay": 0.1, "nesterov": True, "warm_up": warm_up}
    before = weights(make_run(tmp_path / "fresh"))
    after = weights(trained(tmp_path / "run", duration={"steps": 1}, optimizer=optimizer))
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert moved == {"body_norm/beta", "head_conv/bias"}


def test_the_groups_of_a_network():
    rules = weight_rules(model := ToyTask().build_model(), (), to_steps)
    found = {weight.path: rule[::3] for weight, rule in zip(model.trainable_variables, rules, strict=True)}
    assert found == {
        "body_conv/kernel": (True, False),
        "body_norm/gamma": (False, False),
        "body_norm/beta": (False, True),
        "head_conv/kernel": (True, False),
        "head_conv/bias": (False, True),
    }


@pytest.mark.parametrize("config", [Adam(), Sgd()])
def test_without_a_warm_up_all_go_at_the_schedules_rate(config):
    pace = build_warm_up(config, to_steps)(tf.constant(1, tf.int64), tf.constant(0.25))
    assert (float(pace.rate), float(pace.bias_rate), pace.momentum) == (0.25, 0.25, None)


def test_two_warm_ups_of_the_rate_are_an_error():
    values = toy_trainer().model_dump(mode="json")
    values["optimizer"]["warm_up"] = {"length": {"steps": 4}}
    values["schedule"]["burn_in"] = {"length": {"steps": 4}}
    with pytest.raises(ConfigError, match=r"optimizer\.warm_up and schedule\.burn_in both .*remove schedule\.burn_in"):
        check_config(values, type(toy_trainer()), "x.yaml")
