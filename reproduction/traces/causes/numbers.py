"""Hypotheses on few numbers: losses, statistics, learning rates, steps, scores."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Shaped

from reproduction.traces.causes.maps import factor_between
from reproduction.traces.causes.residual import Alternatives, Array, Suspect

_COUNT = 4096  # the largest number of images, subdivisions or replicas that is looked for
_NEAR = 1e-4  # a factor this near to a whole number, or to one over it, is that


def of_numbers(
    ours: Shaped[np.ndarray, "*ours"], expected: Shaped[np.ndarray, "*expected"], kind: str
) -> Iterator[Suspect]:
    """Hypotheses on few numbers of one shape; none where the shapes differ."""
    if ours.shape != expected.shape:
        return
    factor = factor_between(ours, expected, min(8, ours.size))
    if factor:
        yield from _counts(expected, factor, kind)
        if kind == "statistics":
            yield from _variance(expected, factor)
    if ours.ndim == 1 and ours.size >= 4:
        yield from _in_time(ours, expected)


def _counts(expected: Array, factor: float, kind: str) -> Iterator[Suspect]:
    """A factor that is a number of something."""
    cause = {"schedule": "learning_rate_scale", "steps": "learning_rate_scale"}.get(kind, "loss_scale")
    for size, words in ((factor, "times {}"), (1 / factor, "divided by {}")):
        count = round(size)
        if 1 < count <= _COUNT and abs(size - count) <= _NEAR * count:
            text = words.format(count)
            yield Suspect(
                cause, expected * (count if size is factor else 1 / count), f"{text}: images, subdivisions, replicas?"
            )


def _variance(expected: Array, factor: float) -> Iterator[Suspect]:
    """A factor n / (n - 1), or one over it, for a whole n."""
    for size, words in ((factor, "unbiased for biased"), (1 / factor, "biased for unbiased")):
        if 1 < size < 1.5:
            yield Suspect(
                "batch_norm_variance", expected * factor, f"variance {words}, of {size / (size - 1):.6g} numbers"
            )


def _in_time(ours: Array, expected: Array) -> Iterator[Suspect]:
    """Numbers by step: late or early, or a warm-up of another power."""
    for late in (1, -1):
        moved = np.roll(expected, late)
        edge = 0 if late > 0 else -1
        moved[edge] = ours[edge]
        yield Suspect("first_step_zero", moved, f"{abs(late)} step {'later' if late > 0 else 'earlier'}")
    peak = expected.max()
    rising = (expected > 0) & (expected < peak) & (ours > 0) & (ours < peak)
    rising &= np.arange(len(expected)) < int(expected.argmax())
    if peak > 0 and rising.sum() >= 3:
        power = float(np.median(np.log(ours[rising] / peak) / np.log(expected[rising] / peak)))
        with np.errstate(all="ignore"):
            other = np.where(np.arange(len(expected)) < expected.argmax(), peak * (expected / peak) ** power, expected)
        words = f"while the rate rises, its share to the power {power:.4g}: {4 * power:.3g} where the original's is 4"
        yield Suspect("warmup_power", other, words)


def moved_alternatives(
    start: Shaped[np.ndarray, " channels"], batch: Shaped[np.ndarray, " channels"], momentum: float
) -> Alternatives:
    """A moving statistic after one step with each mistake; it is momentum * start + (1 - momentum) * batch."""
    others = [share for share in (1 - momentum, 0.9, 0.99, 0.999, 0.97, 0.1, 0.03) if abs(share - momentum) > 1e-9]
    found = {
        f"batch_norm_momentum {share:g}": lambda share=share: share * start + (1 - share) * batch for share in others
    }
    return found | {"batch_norm_training_mode not moved": lambda: start}
