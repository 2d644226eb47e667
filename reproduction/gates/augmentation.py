"""Augmentation: operations on pixels exactly, for recorded draws; and the draws as distributions.

Of each drawn number a few thousand are compared with as many of the original's formula (`Original.draws`): the largest
distance of the two empirical distribution functions (Kolmogorov and Smirnov) has to be one that equal distributions
exceed once in ten thousand times. Draws are a function of seed and position, so a verdict is always the same.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from dataloaders.schedule import order
from reproduction.experiment.subject import Subject
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import CAUSES, Hint
from reproduction.traces.result import Exhibit, Lines

COUNT = 4096  # draws of ours, of two epochs
REFERENCE = 65536  # draws of the original's formula
SIZE = (427, 640)  # (height, width) of the image that is augmented
INPUT = (320, 416)  # of the network
CHANCE = 1e-4  # of a false alarm, for each number
SHOWN = 40  # quantiles of a chart


def check(case: Case, subject: Subject) -> Iterator[Row | Exhibit]:
    """Each drawn number, beside as many draws of the original's formula."""
    config, seed = subject.experiment.task.data.train.augmentation, subject.experiment.runtime.seed
    if config is None:
        yield Row(case="draws", quantity="all", outcome="skip", note="the experiment does not augment")
        return
    draws = subject.original.draws.get(type(config))
    if draws is None:
        note = f"type {config.type}: the original's formula is not written down here; its tests compare moments"
        yield Row(case="draws", quantity="all", outcome="skip", note=note)
        return

    def draw(example: tf.Tensor) -> dict[str, tf.Tensor]:
        return draws.ours(config, example, SIZE, INPUT)

    ours = _samples(draw, seed)
    expected = draws.stated(config, SIZE, np.random.default_rng(seed), REFERENCE)
    worst, furthest = None, -1.0
    for name, numbers in ours.items():
        row = _same_distribution(name, numbers, np.asarray(expected[name], float))
        yield row
        if row.error > furthest:
            worst, furthest = name, row.error
    yield from _independence(ours)
    yield from _repetition(draw, ours, seed)
    if worst:
        yield _quantile_chart(worst, ours[worst], np.asarray(expected[worst], float))


def _samples(draw: Callable[[tf.Tensor], dict[str, tf.Tensor]], seed: int) -> dict[str, np.ndarray]:
    """COUNT draws by name, [COUNT] each: of the first places of the run's stream, by the pipeline's own seeds."""

    def one(position: tf.Tensor) -> dict[str, tf.Tensor]:
        drawn = draw(order.seed_at(position, COUNT // 2, seed))
        return {name: tf.cast(value, tf.float64) for name, value in drawn.items()}

    positions = tf.range(COUNT, dtype=tf.int64)
    names = tf.function(one, autograph=False).get_concrete_function(tf.TensorSpec([], tf.int64)).structured_outputs
    types = dict.fromkeys(names, tf.float64)
    of_all = tf.function(lambda: tf.map_fn(one, positions, fn_output_signature=types), autograph=False)
    return {name: value.numpy() for name, value in of_all().items()}


def _same_distribution(name: str, ours: np.ndarray, expected: np.ndarray) -> Row:
    places = np.unique(np.concatenate([ours, expected]))
    below = [np.searchsorted(np.sort(each), places, side="right") / len(each) for each in (ours, expected)]
    distance = float(np.abs(below[0] - below[1]).max())
    if np.array_equal(np.unique(ours), np.unique(expected)) and len(np.unique(ours)) == 1:
        distance = 0.0  # a number that is never drawn
    bound = math.sqrt(-math.log(CHANCE / 2) / 2) * math.sqrt((len(ours) + len(expected)) / (len(ours) * len(expected)))
    figures = [f"mean {each.mean():.4g}, from {each.min():.4g} to {each.max():.4g}" for each in (ours, expected)]
    outside = max(0.0, expected.min() - ours.min(), ours.max() - expected.max())
    is_outside = outside > 1e-3 * max(float(np.ptp(expected)), 1e-9)
    note = f"ours: {figures[0]}; original: {figures[1]}" + ("; ours reaches further" if is_outside else "")
    outcome = "fail" if distance > bound else "pass"
    return Row(case="draws", quantity=name, outcome=outcome, error=distance, bound=bound, note=note)


def _independence(ours: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """The largest correlation of two neighbouring positions, of any number: each example is drawn by itself."""
    moving = {name: each for name, each in ours.items() if np.ptp(each) > 0}
    values = {name: abs(float(np.corrcoef(each[:-1], each[1:])[0, 1])) for name, each in moving.items()}
    if not values:
        return
    name = max(values, key=values.get)
    bound = 4.5 / math.sqrt(COUNT)
    outcome = "pass" if values[name] <= bound else "fail"
    note = f"largest of {name}"
    yield Row(
        case="draws", quantity="correlation of neighbours", outcome=outcome, error=values[name], bound=bound, note=note
    )


def _repetition(draw: Callable, ours: Mapping[str, np.ndarray], seed: int) -> Iterator[Row]:
    """The second epoch is not the first again, and another seed draws otherwise."""
    half = COUNT // 2
    moving = [each for each in ours.values() if len(np.unique(each)) > 16]
    if not moving:
        return
    again = max(float(np.mean(each[:half] == each[half:])) for each in moving)
    yield _rare("same draw in the next epoch", again, "augmentation_repeats")
    other = list(_samples(draw, seed + 1).values())
    same = max(float(np.mean(a == b)) for a, b in zip(ours.values(), other, strict=True) if len(np.unique(a)) > 16)
    yield _rare("same draw with another seed", same, "seed_ignored")


def _rare(quantity: str, share: float, cause: str) -> Row:
    """Numbers of a wide range are rarely equal."""
    bound = 0.1
    if share <= bound:
        return Row(case="draws", quantity=quantity, outcome="pass", error=share, bound=bound)
    evidence = f"{share:.0%} of the draws are equal"
    hint = Hint(cause=cause, text=CAUSES[cause], before=share, after=0.0, evidence=evidence)
    return Row(case="draws", quantity=quantity, outcome="fail", error=share, bound=bound, note=evidence, hints=(hint,))


def _quantile_chart(name: str, ours: np.ndarray, expected: np.ndarray) -> Lines:
    at = np.linspace(0, 1, SHOWN + 1)
    lines = {
        label: tuple(zip(at.tolist(), np.quantile(each, at).tolist(), strict=True))
        for label, each in (("ours", ours), ("original", expected))
    }
    return Lines(title=f"Quantiles of {name}, the nearest to its bound", across="share", up=name, lines=lines)
