"""The moving average alone, and in whole steps beside a float64 loop: its start, its end, what it leaves alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from official.core.build_step import build_step, initial_state
from official.core.config import MovingAverage, Trainer
from official.core.config_io import ConfigError
from official.optimization.moving_average import build_average

STEPS, EXAMPLES, START, END = 20, 8, 6, 14
RATE, MOMENTUM, DECAY = 0.05, 0.9, 0.01
EPSILON, KEPT = 1e-3, 0.9  # of batch-norm


def in_steps(duration) -> int:
    return duration.in_steps(8, 80)


def averaged(step: int, **config) -> float:
    """What becomes of the average 1 of a weight 2."""
    update = build_average(MovingAverage(decay=0.99, **config), in_steps)
    return update([tf.constant([1.0])], [tf.constant([2.0])], [], tf.constant(step, tf.int64)).average[0].numpy()[0]


def test_it_warms_up_then_keeps_its_decay():
    assert averaged(1) == pytest.approx(2 - 2 / 11)
    assert averaged(10**6) == pytest.approx(1.01)
    assert averaged(1, warm_up=False) == pytest.approx(1.01)


def test_until_its_start_it_is_the_weights_and_its_warm_up_begins_there():
    start = {"start": {"epochs": 50}}
    assert averaged(1, warm_up=False, **start) == averaged(500, warm_up=False, **start) == averaged(500, **start) == 2
    assert averaged(501, warm_up=False, **start) == pytest.approx(1.01)
    assert averaged(501, **start) == pytest.approx(2 - 2 / 11)


def test_weights_are_not_replaced_before_there_is_an_average():
    with pytest.raises(ConfigError, match="replaces_weights_at is step 10 and start is step 10; expected a later step"):
        build_average(MovingAverage(start={"epochs": 1}, replaces_weights_at={"steps": 10}), in_steps)


class Regression:
    """Mean square error of a batch (image, truth)."""

    def prepare(self, batch):
        return batch

    def loss(self, outputs, labels, moment):
        return tf.reduce_mean(tf.square(outputs[0] - labels)), {}


def model() -> keras.Model:
    """Batch-norm, then a straight line: gradients that fit into the loop below."""
    image = keras.Input([3])
    x = keras.layers.BatchNormalization(momentum=KEPT, epsilon=EPSILON, name="norm")(image)
    return keras.Model(image, keras.layers.Dense(1, kernel_initializer="ones", name="line")(x))


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(3)
    inputs = random.normal(0.5, 2.0, (STEPS, EXAMPLES, 3)).astype(np.float32)
    return [(x, (x @ [[1.0], [-2.0], [0.5]] + 1).astype(np.float32)) for x in inputs]


def loop(config: MovingAverage) -> list[tuple[dict, dict, dict]]:
    """(weights, statistics, average) after each step, in float64, as Darknet's order of work has it."""
    weights = {"gamma": np.ones(3), "beta": np.zeros(3), "kernel": np.ones((3, 1)), "bias": np.zeros(1)}
    momenta = {name: np.zeros_like(value) for name, value in weights.items()}
    statistics = {"mean": np.zeros(3), "variance": np.ones(3)}
    average, history = weights | statistics, []
    for number, (x, truth) in enumerate(batches(), start=1):
        x, mean, variance = x.astype(np.float64), x.mean(0, np.float64), x.var(0, np.float64)
        normal = (x - mean) / np.sqrt(variance + EPSILON)
        scaled = normal * weights["gamma"] + weights["beta"]
        error = 2 * (scaled @ weights["kernel"] + weights["bias"] - truth) / EXAMPLES
        back = error @ weights["kernel"].T
        gradients = {"gamma": (back * normal).sum(0), "beta": back.sum(0), "kernel": scaled.T @ error}
        gradients |= {"bias": error.sum(0)}
        gradients["kernel"] = gradients["kernel"] + DECAY * weights["kernel"]
        momenta = {name: MOMENTUM * momenta[name] + gradients[name] for name in weights}
        weights = {name: weights[name] - RATE * momenta[name] for name in weights}
        new = {"mean": mean, "variance": variance}
        statistics = {name: KEPT * statistics[name] + (1 - KEPT) * new[name] for name in new}

        end = config.replaces_weights_at.steps if config.replaces_weights_at else STEPS + 1
        if number == end:
            weights = {name: average[name] for name in weights}
        if number <= START or number >= end:
            average = weights | statistics
        else:
            average = {
                name: config.decay * average[name] + (1 - config.decay) * value
                for name, value in (weights | statistics).items()
            }
            average |= {} if config.statistics else statistics
        history.append((weights, statistics, average))
    return history


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("end", [None, {"steps": END}])
def test_steps_across_start_and_end_are_those_of_a_float64_loop(statistics, end):
    config = MovingAverage(
        decay=0.8, warm_up=False, start={"steps": START}, statistics=statistics, replaces_weights_at=end
    )
    length = {"steps": STEPS}
    trainer = Trainer(
        duration=length, optimizer={"type": "sgd", "momentum": MOMENTUM, "weight_decay": DECAY},
        schedule={"type": "constant", "learning_rate": RATE}, moving_average=config, checkpoint={"every": length},
    )  # fmt: skip
    network = model()
    step, state = build_step(Regression(), network, trainer, in_steps, seed=0), initial_state(network, trainer)
    compiled = tf.function(step, autograph=False, jit_compile=True)
    for number, (batch, expected) in enumerate(zip(batches(), loop(config), strict=True), start=1):
        state, metrics = compiled(state, batch)
        weights, moving, average = expected
        expected = *weights.values(), *moving.values(), *average.values()
        for here, there in zip((*state.weights, *state.statistics, *state.average), expected, strict=True):
            np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-5, err_msg=f"step {number}")
        assert all(metrics.finite.values())
        follows = number <= START or (end is not None and number >= END)
        for here, value in zip(state.average, (*state.weights, *state.statistics), strict=True):
            assert np.array_equal(here, value) or not follows  # to the bit
        assert follows == np.array_equal(state.average[2], state.weights[2])  # the loop is not blind to it


def test_the_loop_moves_the_weights_where_the_average_replaces_them():
    """Else the comparison above would be of a training that the replacement does not change."""
    options = {"decay": 0.8, "warm_up": False, "start": {"steps": START}}
    without = loop(MovingAverage(**options))
    replaced = loop(MovingAverage(**options, replaces_weights_at={"steps": END}))
    apart = [np.abs(a[0]["kernel"] - b[0]["kernel"]).max() for a, b in zip(without, replaced, strict=True)]
    assert max(apart[: END - 1]) == 0 and min(apart[END - 1 :]) > 1e-3
