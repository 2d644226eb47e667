"""The experiment's own network, with the original's weights, on recorded inputs: the numbers before each head."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from modeling.darknet.cfg import Network
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
        if f"{mode}/X" in case.trace:
            image = case.trace.array(f"{mode}/X", (3, "rows", "columns"), np.floating)
            given = tf.constant(relayout(image, "CHW", "HWC")[np.newaxis])
            yield from _beside(case, mode, case.network, subject.own.outputs_with(subject.weights, given))
        else:
            yield case.skip(f"{mode}/X", "not recorded")


def _beside(case: Case, mode: str, network: Network, outputs: list[tf.Tensor]) -> Iterator[Row]:
    for head, output in zip(network.heads, outputs, strict=True):
        name = f"{mode}/L{head.index - 1:03d}_output"
        if name not in case.trace:
            yield case.skip(f"{name} (the experiment's own)", "not recorded")
            continue
        ours = np.asarray(output)
        ours = relayout(ours.reshape(*ours.shape[:3], -1), "NHWC", "NCHW")
        row = case.compare(name, ours, HEAD, clue=Clue("head", "NCHW"))
        yield row.model_copy(update={"quantity": f"{name} (the experiment's own)"})
