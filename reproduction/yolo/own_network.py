"""The experiment's own network: on recorded inputs, and beside the network that the original's cfg describes."""

import functools
import tempfile
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from configs.yolo.task import YoloModel
from modeling.darknet.build import build_network
from modeling.darknet.classes import with_classes
from modeling.darknet.loading import save_weights
from modeling.darknet.weights import network_records
from reproduction.experiment.subject import Subject, sha256
from reproduction.seeded.weights import seed_weights
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.compare import OfAbsmax
from reproduction.traces.trace import relayout
from reproduction.yolo.case import network_of
from reproduction.yolo.inference import HEAD, MODES
from reproduction.yolo.recipe import original_cfg

BESIDE = OfAbsmax(bound=1e-4)


def has_weights(subject: Subject, case: Case) -> bool:
    """Whether the case was recorded with the subject's weights, and they are at hand."""
    return subject.weights is not None and case.trace.text("meta/weights_sha256") == sha256(subject.weights)


def outputs(case: Case, subject: Subject) -> Iterator[Row]:
    """The outputs of the model that training builds, beside the recorded ones, of each recorded input."""
    experiment = subject.experiment
    if experiment is None:
        yield case.skip("all", "needs an experiment: give --config, or --darknet")
        return
    for mode in MODES:
        if f"{mode}/X" not in case.trace:
            yield case.skip(f"{mode}/X", "not recorded")
            continue
        array = case.trace.array(f"{mode}/X", (3, "rows", "columns"), np.floating)
        image = tf.constant(relayout(array, "CHW", "HWC")[np.newaxis])
        outputs = functools.cache(
            lambda name, image=image: [
                _as_recorded(one) for one in subject.own.outputs_with(subject.weights, image, name)
            ]
        )
        for number, head in enumerate(network_of(case).heads):
            name = f"{mode}/L{head.index - 1:03d}_output"
            quantity = f"{name} (the experiment's own)"
            if name not in case.trace:
                yield case.skip(quantity, "not recorded")
                continue
            exact = functools.partial(lambda number, outputs: outputs("float64")[number], number, outputs)
            row = case.compare(name, outputs("float32")[number], HEAD, None, Clue("head", "NCHW"), exact)
            yield row.model_copy(update={"quantity": quantity})


def _as_recorded(
    output: Float[tf.Tensor, "batch rows columns ..."],
) -> Float[np.ndarray, "batch channels rows columns"]:
    """[batch, anchors * entries, rows, columns]."""
    ours = np.asarray(output)
    return relayout(ours.reshape(*ours.shape[:3], -1), "NHWC", "NCHW")


def beside_cfg(case: Case, subject: Subject) -> Iterator[Row]:
    """Outputs of the model that training builds and of the cfg's network, with the same seeded file of weights."""
    model_config = subject.experiment.task.model
    if original_cfg(subject) is None or not isinstance(model_config, YoloModel):
        named = (
            "the model is the cfg's own" if original_cfg(subject) else "the original's cfg is not at hand (--assets)"
        )
        yield case.skip("outputs", f"nothing to compare the model's parts with: {named}")
        return
    own = subject.own.small
    size = tuple(own.experiment.task.model.input_size)
    network = with_classes(original_cfg(subject), len(own.experiment.task.data.classes))
    described = build_network(network, seed=1, input_size=size).model
    seed_weights(described, own)
    ours = own.task.build_model()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/seeded.weights"
        save_weights(described, path, network_records(network))
        own.task.load_weights(ours, path)
    images = tf.constant(np.random.default_rng(3).uniform(size=(2, *size, 3)), tf.float32)
    pairs = zip(*(tf.nest.flatten(model(images, training=False)) for model in (ours, described)), strict=True)
    for number, (mine, theirs) in enumerate(pairs):
        yield case.compare(f"output {number}", mine, BESIDE, theirs, Clue("layer"))
    own.note_network()
