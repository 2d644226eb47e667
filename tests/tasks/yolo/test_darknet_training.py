"""Whole networks trained for six steps as Darknet recorded them: schedule, micro-batches, optimiser, layer rates."""

import numpy as np
import pytest
import tensorflow as tf

from configs.experiment import Experiment
from losses.yolo import LOSSES
from losses.yolo.from_cfg import head_and_loss
from modeling.darknet.build import build_network
from modeling.darknet.cfg import parse_cfg
from modeling.darknet.loading import load_into, values_of
from modeling.darknet.weights import Header, WeightsFile, network_records
from official.core.build_step import build_step, initial_state
from official.core.config import Trainer
from official.core.config_io import check_config
from official.core.step import State, TrainStep
from tasks.yolo.recipe import Sources, recipe
from tests.losses.yolo.traces import truth_of

STEPS = 6
UPDATES = {"weights": "weight_updates", "biases": "bias_updates", "scales": "scale_updates"}


class Recorded:
    """One recorded training: what the step asks of a task, and the trainer that the cfg asks for."""

    def __init__(self, arrays) -> None:
        self.arrays, self.network = arrays, parse_cfg(str(arrays["meta/cfg"]), "trace")
        self.head, self.head_loss = head_and_loss(self.network)
        self.records = network_records(self.network)
        self.model = build_network(self.network, seed=0).model
        values = {
            record.name: {name: arrays[f"init/L{record.index:03d}_{name}"] for name in record.parameters}
            for record in self.records
        }
        load_into(self.model, self.records, WeightsFile(Header(), values))
        source = {"type": "coco", "annotations": "a.json", "images": "images"}
        made = recipe(self.network, Sources(("a", "b", "c", "d"), source, source)).experiment
        self.trainer: Trainer = check_config(made, Experiment, "trace").trainer

    def batch(self):
        return tf.constant(self.arrays["X"].transpose(0, 2, 3, 1)), truth_of(self.arrays["truth"])

    def prepare(self, batch):
        return batch

    def loss(self, outputs, labels, moment):
        return LOSSES[self.head.type](outputs, labels, self.head, self.head_loss, moment)

    def in_darknets_form(self, tensors) -> dict[str, np.ndarray]:
        """Tensors like the model's trainable weights, by Darknet's names such as L003_weights."""
        kept = [np.array(variable) for variable in self.model.trainable_variables]
        for variable, tensor in zip(self.model.trainable_variables, tensors, strict=True):
            variable.assign(tensor)
        values = values_of(self.model, self.records)
        for variable, value in zip(self.model.trainable_variables, kept, strict=True):
            variable.assign(value)
        return {f"L{r.index:03d}_{name}": array for r in self.records for name, array in values[r.name].items()}


def start(recorded: Recorded) -> tuple[TrainStep, State]:
    model, trainer = recorded.model, recorded.trainer
    step = build_step(recorded, model, trainer, lambda duration: duration.in_steps(4, 4), seed=0)
    return step, initial_state(model, trainer)


def assert_relative(actual, expected, what: str) -> None:
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error < 1e-5, f"{what}: {error:.2e} of the largest value"


@pytest.mark.parametrize("name", ["sgd_v3_cudnn_emulated", "sgd_v4tiny_cudnn_emulated"])
def test_six_steps_are_darknets(golden, name):
    recorded = Recorded(np.load(golden(f"optim/{name}.npz")))
    arrays, trainer = recorded.arrays, recorded.trainer
    assert trainer.micro_batches == 2
    assert [rule.learning_rate for rule in trainer.layers] == [0.5]  # of layer 2 alone
    train_step, state = start(recorded)
    step = tf.function(train_step, autograph=False)
    for number in range(STEPS):
        state, metrics = step(state, recorded.batch())
        where = f"{name} step {number + 1}"
        assert metrics.scalars["learning_rate"].numpy() == pytest.approx(float(arrays[f"it{number}/lr"]), rel=1e-6)
        assert metrics.scalars["loss"].numpy() == pytest.approx(float(arrays[f"it{number}/loss_printed"]), rel=1e-5)
        assert all(metrics.finite.values())
        momenta = recorded.in_darknets_form(state.slots["momentum"])
        parameters = recorded.in_darknets_form(state.weights)
        for parameter, values in parameters.items():
            layer, _, kind = parameter.partition("_")
            if kind not in UPDATES:
                continue
            assert_relative(values, arrays[f"it{number}/after/{parameter}"], f"{where} {parameter}")
            buffer = arrays[f"it{number}/momentum_buffer/{layer}_{UPDATES[kind]}"]
            ours = -momenta[parameter] * trainer.optimizer.momentum * 4  # of the sum, after the momentum is applied
            assert_relative(ours, buffer, f"{where} buffer of {parameter}")
    statistics = dict(zip((v.path for v in recorded.model.non_trainable_variables), state.statistics, strict=True))
    for path, values in statistics.items():
        kind = {"moving_mean": "rolling_mean", "moving_variance": "rolling_variance"}[path.rpartition("/")[2]]
        assert_relative(values, arrays[f"it{STEPS - 1}/after/{path[:4]}_{kind}"], path)


def test_without_the_layers_own_rate_the_recorded_steps_are_missed(golden):
    """The comparison sees what it should: the same steps with another rate in one layer are another training."""
    recorded = Recorded(np.load(golden("optim/sgd_v3_cudnn_emulated.npz")))
    recorded.trainer = recorded.trainer.model_copy(update={"layers": ()})
    train_step, state = start(recorded)
    state, _ = train_step(state, recorded.batch())
    with pytest.raises(AssertionError, match="L002_"):
        for parameter, values in recorded.in_darknets_form(state.weights).items():
            if parameter.partition("_")[2] in UPDATES:
                assert_relative(values, recorded.arrays[f"it0/after/{parameter}"], parameter)
