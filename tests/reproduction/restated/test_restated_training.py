"""The restated step against what Darknet and YOLOv7 recorded, the originals' own loops, and the trainer's own step."""

import json
import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from official.core.config import Adam, AdamW, LayerRule, MovingAverage, Sgd, Trainer
from official.core.layer_rules import weight_rules
from official.core.step import State, TrainStep
from official.optimization.moving_average import build_average
from official.optimization.optimizers import slot_names
from official.optimization.schedules import build_schedule
from official.optimization.warm_up import build_warm_up
from reproduction.restated import optimisers, training
from reproduction.restated.optimisers import Group
from reproduction.restated.schedules import learning_rate, pace
from tests.official.core.toy_task import HEIGHT, WIDTH, ToyTask, toy_trainer

WARM_UP = {"length": {"steps": 5}, "bias_learning_rate": 0.1, "momentum": 0.8}


def in_steps(duration) -> int:
    return duration.in_steps(8, 80)


@pytest.fixture
def problem():
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=[3, 2]), rng.normal(size=[5])]
    return weights, [[rng.normal(size=weight.shape) for weight in weights] for _ in range(7)]


def restated(config, weights, steps, decays, rate) -> list[list[np.ndarray]]:
    """Weights after each step."""
    slots, history = optimisers.slots_at_start(config, weights), []
    for step, gradients in enumerate(steps, start=1):
        weights, slots = optimisers.update(config, weights, gradients, slots, decays, [rate] * len(weights), step)
        history.append(weights)
    return history


DROPS = [{"at": {"steps": at}, "scale": scale} for at, scale in ((3, 0.5), (5, 0.1))]
SGD_TRACES = {  # with the schedule of its cfg
    "sgd_v4tiny_cudnn_emulated": {"type": "constant", "learning_rate": 0.02},
    "sgd_v3_cudnn_emulated": {
        "type": "steps", "learning_rate": 0.02, "burn_in": {"length": {"steps": 2}}, "drops": DROPS,
    },
}  # fmt: skip


@pytest.mark.parametrize("trace", SGD_TRACES)
def test_each_update_is_darknets_recorded_one(golden, trace):
    """Rate, groups, parameters and buffer: Darknet's is minus the batch times ours, with the next momentum in it."""
    recorded = np.load(golden(f"optim/{trace}.npz"))
    options = dict(re.findall(r"^(\w+) *= *(\S+)", str(recorded["meta/cfg"]).partition("[convolutional]")[0], re.M))
    batch, config = 4, Sgd(weight_decay=float(options["decay"]))
    schedule = toy_trainer(schedule=SGD_TRACES[trace]).schedule
    names = {"weights": "kernel", "biases": "bias", "scales": "gamma"}
    updates = {"weights": "weight_updates", "biases": "bias_updates", "scales": "scale_updates"}
    parameters = [key.removeprefix("init/") for key in recorded.files if re.match("init/L..._(weights|bia|sca)", key)]
    paths = ["/".join((name[:4], names[name[5:]])) for name in parameters]
    before = [recorded[f"init/{name}"].astype(float) for name in parameters]
    groups = optimisers.groups(paths, [w.ndim for w in before], [LayerRule(name="L002", learning_rate=0.5)], in_steps)
    left = [np.zeros_like(one) for one in before]
    for number in range(6):
        rate = learning_rate(schedule, number + 1, 100, in_steps)
        np.testing.assert_allclose(rate, recorded[f"it{number}/lr"], rtol=1e-6)
        added = [recorded[f"it{number}/before_update/{name[:5]}{updates[name[5:]]}"] for name in parameters]
        gradients = [(one - old) / -batch for one, old in zip(added, left, strict=True)]
        slots = {"momentum": [old / (-batch * config.momentum) for old in left]}
        rates, decays = [rate * group.rate for group in groups], [group.decays for group in groups]
        weights, slots = optimisers.update(config, before, gradients, slots, decays, rates, number + 1)
        before = [recorded[f"it{number}/after/{name}"].astype(float) for name in parameters]
        left = [recorded[f"it{number}/momentum_buffer/{name[:5]}{updates[name[5:]]}"] for name in parameters]
        left = [one.astype(float) for one in left]
        for name, ours, theirs, buffer, old in zip(parameters, weights, before, slots["momentum"], left, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-7 * np.abs(theirs).max(), err_msg=name)
            mine = -batch * config.momentum * buffer
            np.testing.assert_allclose(mine, old, rtol=0, atol=1e-6 * np.abs(old).max(), err_msg=name)
    assert len(parameters) == 11


def yolov7(shared):
    recorded = np.load(shared / "golden_wongkinyiu/optim_v7.npz")
    return recorded, json.loads(str(recorded["meta/json"]))


def test_warm_up_is_yolov7s(shared):
    """Both rates and the momentum of every iteration until the warm-up's end, and the last of the momentum after."""
    _, meta = yolov7(shared)
    run = meta["hyp"]
    warm_up = {"length": {"steps": meta["nw"]}, "bias_learning_rate": 0.1, "momentum": run["warmup_momentum"]}
    config = Sgd(momentum=run["momentum"], nesterov=True, warm_up=warm_up)
    cosine = {"type": "cosine", "learning_rate": 0.01, "final_fraction": run["lrf"], "held": {"steps": meta["nb"]}}
    cosine = toy_trainer(schedule=cosine).schedule
    for iteration in meta["log"]:
        step = iteration["ni"] + 1
        found = pace(config, step, learning_rate(cosine, step, meta["nb"] * meta["epochs"], in_steps), in_steps)
        np.testing.assert_allclose(found.momentum, iteration["momentum"], rtol=1e-12)
        if iteration["ni"] <= meta["nw"]:
            np.testing.assert_allclose([found.rate, found.rate, found.bias_rate], iteration["lr"], rtol=1e-12)


def test_groups_and_first_update_are_yolov7s(shared):
    """From the recorded gradient: kernels and scales wait at rate 0, biases go at 0.1."""
    recorded, meta = yolov7(shared)
    of = {name: number for number, group in enumerate(meta["groups"]) for name in group}
    of = {name: number for name, number in of.items() if f"f32/step0/grad/{name}" in recorded}
    weights = [recorded[f"init/{name}"].astype(float) for name in of]
    assert len(of) == 91
    # Keras' names; the network's implicit vectors are no variables of ours.
    known = [name for name in of if "implicit" not in name]
    paths = [f"x/{'bias' if name.endswith('bias') else 'kernel'}" for name in known]
    groups = optimisers.groups(paths, [recorded[f"init/{name}"].ndim for name in known])
    assert [of[name] for name in known] == [2 if one.is_bias else 1 if one.decays else 0 for one in groups]
    config = Sgd(momentum=0.937, weight_decay=meta["hyp"]["weight_decay"], nesterov=True)
    log = meta["log"][0]
    gradients = [recorded[f"f32/step0/grad/{name}"].astype(float) for name in of]
    slots = optimisers.slots_at_start(config, weights)
    rates = [log["lr"][number] for number in of.values()]
    ours, _ = optimisers.update(
        config, weights, gradients, slots, [n == 1 for n in of.values()], rates, 1, log["momentum"][0]
    )
    for name, one in zip(of, ours, strict=True):
        expected = recorded[f"f32/step0/model/{name}"]
        np.testing.assert_allclose(one, expected, rtol=0, atol=2e-7 * np.abs(expected).max() + 1e-9, err_msg=name)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_darknets_order_of_operations(problem, momentum):
    """Written in Darknet's own form: sums of gradients, decay times batch, momentum multiplied in after the step."""
    weights, steps = problem
    batch, rate, decay = 4, 0.1, 0.01
    values, buffers = [weight.copy() for weight in weights], [np.zeros_like(weight) for weight in weights]
    for gradients in steps:
        for index, gradient in enumerate(gradients):
            buffers[index] += -gradient * batch
            if index == 0:
                buffers[index] += -decay * batch * values[index]
            values[index] = values[index] + rate / batch * buffers[index]
            buffers[index] = buffers[index] * momentum
    ours = restated(Sgd(momentum=momentum, weight_decay=decay), weights, steps, [True, False], rate)[-1]
    for mine, theirs in zip(ours, values, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)


def test_adam_is_darknets_order_of_operations(problem):
    """Written in Darknet's own form: sums of gradients, decay of all weights, epsilon beside the root of that sum."""
    weights, steps = problem
    batch, b1, b2, eps, decay, rate = 4, 0.8, 0.95, 1e-2, 0.1, 0.1
    values = [weight.copy() for weight in weights]
    first, second = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
    for number, gradients in enumerate(steps, start=1):
        for index, gradient in enumerate(gradients):
            updates = -gradient * batch - decay * batch * values[index]
            first[index] = b1 * first[index] + (1 - b1) * updates
            second[index] = b2 * second[index] + (1 - b2) * updates**2
            mean, square = first[index] / (1 - b1**number), second[index] / (1 - b2**number)
            values[index] = values[index] + rate * mean / (np.sqrt(square) + eps)
    config = Adam(beta1=b1, beta2=b2, epsilon=eps / batch, weight_decay=decay)
    for mine, theirs in zip(restated(config, weights, steps, [True, False], rate)[-1], values, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)


def test_adamw_is_the_papers_algorithm(problem):
    """Its second algorithm line by line, the schedule's multiplier being the rate and its alpha 1."""
    weights, steps = problem
    config = AdamW(beta1=0.8, beta2=0.95, epsilon=1e-3, weight_decay=0.1)
    values = [weight.copy() for weight in weights]
    m, v = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
    for t, gradients in enumerate(steps, start=1):
        for k, gradient in enumerate(gradients):
            m[k] = 0.8 * m[k] + 0.2 * gradient
            v[k] = 0.95 * v[k] + 0.05 * gradient**2
            step = (m[k] / (1 - 0.8**t)) / (np.sqrt(v[k] / (1 - 0.95**t)) + 1e-3)
            values[k] = values[k] - 0.1 * (step + (0.1 * values[k] if k == 0 else 0))
    for mine, theirs in zip(restated(config, weights, steps, [True, False], 0.1)[-1], values, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)


def test_rules_find_the_weights_below_a_layer():
    """Two rules on one weight both count; the kernel of a merge decays, a bias of three dimensions does not."""
    paths = ["a/kernel", "a/beta", "b1/inner/gamma", "b1/inner/offset_bias", "merge/kernel", "local/bias"]
    rules = [
        LayerRule(name="b[0-3]", learning_rate=0.5, no_gradient={"epochs": 2}),
        LayerRule(name="*n*", learning_rate=0.5, no_gradient={"steps": 3}),
    ]
    found = optimisers.groups(paths, [4, 1, 1, 1, 2, 3], rules, in_steps)
    assert found == [
        Group(True, False),
        Group(False, True),
        Group(False, False, 0.25, 20),
        Group(False, True, 0.25, 20),
        Group(True, False),
        Group(False, True),
    ]
    with pytest.raises(ValueError, match="'c' matches none"):
        optimisers.groups(paths, [4, 1, 1, 1, 2, 3], [LayerRule(name="c")], in_steps)


@pytest.mark.parametrize(
    "average",
    [
        *({}, {"warm_up": False}, {"start": {"steps": 3}}, {"start": {"steps": 3}, "warm_up": False}),
        *({"statistics": False}, {"start": {"steps": 2}, "replaces_weights_at": {"steps": 4}, "statistics": False}),
    ],
)
def test_the_average_is_the_products(problem, average):
    """Of the values of each step the first is a weight, the others stand for batch-norm's statistics."""
    config, history = MovingAverage(decay=0.3, **average), problem[1]
    ours = theirs = problem[0]
    for step, values in enumerate(history, start=1):
        weights, ours = training.moving_average(config, ours, values[:1], values[1:], step, in_steps)
        mean, *single = ([tf.constant(one, tf.float32) for one in some] for some in (theirs, values[:1], values[1:]))
        done = build_average(config, in_steps)(mean, *single, tf.constant(step, tf.int64))
        theirs = done.average
        for mine, other in zip([*weights, *ours], [*done.weights, *theirs], strict=True):
            np.testing.assert_allclose(mine, other, atol=1e-6)


def test_the_average_starts_at_the_weights_and_its_warm_up_begins_there():
    config = MovingAverage(decay=0.99, start={"epochs": 50})
    at = lambda step, **change: training.moving_average(  # noqa: E731
        config.model_copy(update=change), [np.array([1.0])], [np.array([2.0])], [], step, in_steps
    )[1][0]
    assert at(1) == at(500) == at(500, warm_up=False) == 2
    assert at(501, warm_up=False) == pytest.approx(1.01)
    assert at(501) == pytest.approx(2 - 2 / 11)
    assert at(10**6) == pytest.approx(1.01)


def test_clipping_shortens_all_arrays_together():
    gradients = [np.array([[3.0]]), np.array([0.0, 4.0])]
    clipped, norm = training.clip(gradients, 1.0)
    assert norm == 5 and [one.tolist() for one in clipped] == [[[pytest.approx(0.6)]], [0, pytest.approx(0.8)]]
    for most in (None, 5.0, 7.0):
        for one, other in zip(training.clip(gradients, most)[0], gradients, strict=True):
            np.testing.assert_array_equal(one, other)


class Given:
    """A task whose loss is the outputs' scalar product with the labels."""

    def prepare(self, batch):
        return batch

    def loss(self, outputs, labels, moment):
        return tf.reduce_sum(outputs[0] * labels), {}


RECIPES = {
    "darknet": {"optimizer": {"type": "sgd"}, "schedule": {"type": "steps", "learning_rate": 0.1,
                "burn_in": {"length": {"steps": 3}}, "drops": [{"at": {"steps": 5}, "scale": 0.1}]}},
    "yolov7": {"optimizer": {"type": "sgd", "nesterov": True, "weight_decay": 0.01, "warm_up": WARM_UP},
               "schedule": {"type": "cosine", "learning_rate": 0.05, "held": {"steps": 3}},
               "moving_average": {"decay": 0.9}, "micro_batches": 2},
    "adam": {"optimizer": {"type": "adam", "weight_decay": 0.01, "epsilon": 1e-3}, "clip_global_norm": 0.2},
    "adamw": {"optimizer": {"type": "adamw", "epsilon": 1e-3}, "clip_global_norm": 0.2, "micro_batches": 4,
              "moving_average": {"start": {"steps": 3}, "warm_up": False},
              "layers": [{"name": "head*", "learning_rate": 0.5}, {"name": "body_conv", "no_gradient": {"steps": 4}}]},
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_whole_steps_are_the_trainers(name):
    """Seven steps of the trainer's own step on a small network; each from the state that the trainer is in."""
    trainer = toy_trainer(duration={"steps": 7}, **RECIPES[name])
    rng = np.random.default_rng(1)
    model = ToyTask(norm=True).build_model()
    paths = [weight.path for weight in model.trainable_variables]
    ranks = [len(weight.shape) for weight in model.trainable_variables]
    groups = optimisers.groups(paths, ranks, trainer.layers, in_steps)
    step, state = _products_step(trainer, model)
    for number in range(1, 8):
        images, factors = rng.random([4, HEIGHT, WIDTH, 3]), rng.normal(size=[4, 1])
        batch = tf.constant(images, tf.float32), tf.constant(factors, tf.float32)
        parts = [_gradients(step, state, part) for part in _parts(batch, trainer.micro_batches)]
        new, metrics = step(state, batch)
        arrays = lambda tensors: [np.asarray(tensor, float) for tensor in tensors]  # noqa: E731
        slots = {slot: arrays(values) for slot, values in state.slots.items()}
        ours = training.train_step(
            trainer, parts, arrays(state.weights), arrays(new.statistics), slots, arrays(state.average), groups,
            number, in_steps,
        )  # fmt: skip
        np.testing.assert_allclose(ours.learning_rate, metrics.scalars["learning_rate"], rtol=1e-6)
        assert trainer.clip_global_norm is None or ours.gradient_norm > trainer.clip_global_norm
        np.testing.assert_allclose(ours.gradient_norm, metrics.scalars["gradient_norm"], rtol=1e-5)
        pairs = [*zip(ours.weights, new.weights, strict=True), *zip(ours.average, new.average, strict=True)]
        for slot, values in ours.slots.items():
            pairs += zip(values, new.slots[slot], strict=True)
        for mine, theirs in pairs:
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6 * (1 + np.abs(theirs).max()))
        state = new


def _products_step(trainer: Trainer, model: keras.Model) -> tuple[TrainStep, State]:
    weights = [tf.identity(variable) for variable in model.trainable_variables]
    statistics = [tf.identity(variable) for variable in model.non_trainable_variables]
    slots = {name: [tf.zeros_like(weight) for weight in weights] for name in slot_names(trainer.optimizer)}
    average = [*weights, *statistics] if trainer.moving_average else []
    schedule = build_schedule(trainer.schedule, in_steps(trainer.duration), in_steps, 0)
    step = TrainStep(
        Given(), model, trainer, schedule, weight_rules(model, trainer.layers, in_steps),
        build_average(trainer.moving_average, in_steps), build_warm_up(trainer.optimizer, in_steps),
    )  # fmt: skip
    return step, State(tf.constant(0, tf.int64), weights, statistics, slots, average)


def _parts(batch, count: int):
    return zip(*(tf.split(part, count) for part in batch), strict=True)


def _gradients(step: TrainStep, state: State, batch) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        tape.watch(state.weights)
        outputs, _ = step.model.stateless_call(state.weights, state.statistics, batch[0], training=True)
        loss = tf.reduce_sum(tf.nest.flatten(outputs)[0] * batch[1])
    return [np.asarray(one, float) for one in tape.gradient(loss, state.weights)]


def test_groups_are_the_products():
    model = ToyTask().build_model()
    layers = [LayerRule(name="*conv", learning_rate=0.5, no_gradient={"epochs": 1}), LayerRule(name="body*")]
    ranks = [len(weight.shape) for weight in model.trainable_variables]
    ours = optimisers.groups([weight.path for weight in model.trainable_variables], ranks, layers, in_steps)
    rules = weight_rules(model, layers, in_steps)
    assert [(one.decays, one.rate, one.waits, one.is_bias) for one in ours] == [tuple(rule) for rule in rules]


def test_pytorchs_epochs_with_warm_ups_and_nesterov():
    """A loop over epochs and batches, the groups in PyTorch's order, torch.optim.SGD's buffer set at its first step."""
    epochs, per_epoch, warm, rate, final = 3, 7, 9, 0.01, 0.2
    rng = np.random.default_rng(5)
    start = {"gamma": rng.normal(size=5), "kernel": rng.normal(size=[3, 2]), "beta": rng.normal(size=5)}
    gradients = [{name: rng.normal(size=w.shape) for name, w in start.items()} for _ in range(epochs * per_epoch)]
    expected = pytorch(start, gradients, epochs, per_epoch, warm, rate, final)
    warm_up = {"length": {"steps": warm}, "bias_learning_rate": 0.1, "momentum": 0.8}
    trainer = toy_trainer(
        duration={"epochs": epochs},
        optimizer={"type": "sgd", "momentum": 0.937, "weight_decay": 0.05, "nesterov": True, "warm_up": warm_up},
        schedule={"type": "cosine", "learning_rate": rate, "final_fraction": final, "held": {"epochs": 1}},
    )
    weights, to_steps = list(start.values()), lambda duration: duration.in_steps(1, per_epoch)
    groups = optimisers.groups([f"x/{name}" for name in start], [w.ndim for w in weights])
    slots = optimisers.slots_at_start(trainer.optimizer, weights)
    for step, theirs in enumerate(expected, start=1):
        given = [list(gradients[step - 1].values())]
        weights, slots, *_ = training.train_step(trainer, given, weights, [], slots, [], groups, step, to_steps)
        for name, mine in zip(start, weights, strict=True):
            np.testing.assert_allclose(mine, theirs[name], rtol=0, atol=1e-12, err_msg=f"{name} at {step}")


def pytorch(start, gradients, epochs, per_epoch, warm, rate, final) -> list[dict[str, np.ndarray]]:
    values, buffers, history = dict(start), {}, []
    for epoch in range(epochs):
        target = rate * ((1 + math.cos(epoch * math.pi / epochs)) / 2 * (1 - final) + final)
        for batch in range(per_epoch):
            count = batch + per_epoch * epoch
            momentum = np.interp(count, [0, warm], [0.8, 0.937])
            for name in ("gamma", "kernel", "beta"):
                now = np.interp(count, [0, warm], [0.1 if name == "beta" else 0.0, target])
                gradient = gradients[count][name] + (0.05 * values[name] if name == "kernel" else 0)
                buffers[name] = momentum * buffers[name] + gradient if name in buffers else gradient
                values[name] = values[name] - now * (gradient + momentum * buffers[name])
            history.append(dict(values))
    return history
