"""The experiment's own network, with the original's weights, on recorded inputs: the numbers before each head."""

import functools
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from reproduction.golden.case import Case, Row
from reproduction.golden.detection import HEAD, MODES
from reproduction.hints import Clue
from reproduction.subject import Subject, sha256
from reproduction.trace import relayout


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
            lambda name, image=image: [_as_recorded(one) for one in subject.own.outputs_with(subject.weights, image, name)]
        )
        for number, head in enumerate(case.network.heads):
            name = f"{mode}/L{head.index - 1:03d}_output"
            quantity = f"{name} (the experiment's own)"
            if name not in case.trace:
                yield case.skip(quantity, "not recorded")
                continue
            exact = functools.partial(lambda number, outputs: outputs("float64")[number], number, outputs)
            row = case.compare(name, outputs("float32")[number], HEAD, None, Clue("head", "NCHW"), exact)
            yield row.model_copy(update={"quantity": quantity})


def _as_recorded(output: Float[tf.Tensor, "batch rows columns ..."]) -> Float[np.ndarray, "batch channels rows columns"]:
    """[batch, anchors * entries, rows, columns]."""
    ours = np.asarray(output)
    return relayout(ours.reshape(*ours.shape[:3], -1), "NHWC", "NCHW")
