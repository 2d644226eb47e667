"""The network: of one layer each, as recorded; whole, with the original's weights, as built from the cfg and by us."""

import functools
from collections.abc import Callable, Iterator
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from modeling.darknet.cfg import Network
from reproduction.gates.recorded import rows_of_kind
from reproduction.gates.relevant import is_relevant
from reproduction.gates.result import NoInputsError
from reproduction.gates.subject import Subject
from reproduction.golden.case import Case, Row
from reproduction.golden.detection import HEAD, MODES
from reproduction.golden.precision import precision
from reproduction.hints import Clue
from reproduction.trace import relayout
from tasks.jobs import build_task


def check(subject: Subject) -> Iterator[Row]:
    """Layers alone come first: what they find is nearer to the cause than what a whole network shows."""
    yield from _centernet(subject) if subject.is_centernet else _darknet(subject)


def _centernet(subject: Subject) -> Iterator[Row]:
    yield from rows_of_kind("centernet_dcn", subject)
    rows = list(rows_of_kind("centernet_network", subject))
    yield from rows
    if not rows:
        raise NoInputsError(subject.missing("NAME_trace.npz"))


def _darknet(subject: Subject) -> Iterator[Row]:
    yield from rows_of_kind("activations", subject)
    alone = list(rows_of_kind("layers_eval", subject))
    yield from alone
    whole = list(rows_of_kind("infer", subject, keep=lambda quantity: "/thresh" not in quantity))
    yield from whole
    yield from own_outputs(subject)
    if not any(row.outcome != "skip" for row in whole):
        missing = "the weights it was recorded with: give --assets DIR" if whole else subject.missing("infer/*.npz")
        if subject.experiment is not None or not alone:
            raise NoInputsError(f"the network as a whole was not compared: {missing}")


def own_outputs(subject: Subject) -> Iterator[Row]:
    """The experiment's own network, by the code that trains it, on recorded inputs: the numbers before each head."""
    if subject.experiment is None or subject.weights is None:
        return
    task, weights = build_task(subject.experiment), str(subject.weights)

    @functools.cache
    def model(name: Literal["float32", "float64"]) -> keras.Model:
        with precision(name):
            built = task.build_model()
        task.load_weights(built, weights)
        return built

    for case in subject.of_kind("infer"):
        if isinstance(case, Row) or not is_relevant("infer", subject, case):
            continue
        for mode in MODES:
            if f"{mode}/X" not in case.trace:
                continue
            array = case.trace.array(f"{mode}/X", (3, "rows", "columns"), np.floating)
            image = tf.constant(relayout(array, "CHW", "HWC")[np.newaxis])

            def outputs(name: Literal["float32", "float64"], image: tf.Tensor = image) -> list[np.ndarray]:
                return [_as_recorded(output) for output in tf.nest.flatten(model(name)(image, training=False))]

            exact = functools.cache(functools.partial(outputs, "float64"))
            yield from _beside(case, mode, case.network, outputs("float32"), exact)


def _as_recorded(output: tf.Tensor) -> np.ndarray:
    """[batch, anchors * entries, rows, columns]."""
    ours = np.asarray(output)
    return relayout(ours.reshape(*ours.shape[:3], -1), "NHWC", "NCHW")


def _beside(
    case: Case, mode: str, network: Network, outputs: list[np.ndarray], exact: Callable[[], list[np.ndarray]]
) -> Iterator[Row]:
    for number, (head, ours) in enumerate(zip(network.heads, outputs, strict=True)):
        name = f"{mode}/L{head.index - 1:03d}_output"
        if name not in case.trace:
            yield case.skip(f"{name} (the experiment's own)", "not recorded")
            continue
        row = case.compare(name, ours, HEAD, None, Clue("head", "NCHW"), lambda number=number: exact()[number])
        yield row.model_copy(update={"quantity": f"{name} (the experiment's own)"})
