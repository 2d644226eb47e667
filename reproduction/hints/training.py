"""What one step of training would give with a known mistake: Darknet's SGD, averages, statistics, in NumPy."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reproduction.hints.residual import Array

Alternatives = Mapping[str, Callable[[], Array]]


class SgdStep(NamedTuple):
    """One update of one parameter.

    buffer = momentum * buffer + gradient + decay * before; after = before - rate * buffer.

    gradient: of the batch's mean loss. decay: 0 for a parameter that the original does not decay; `configured` is what
    it decays others by. count: what a sum may be divided by (images, subdivisions, replicas).
    """

    before: Array
    gradient: Array
    buffer: Array
    rate: float
    momentum: float
    decay: float
    configured: float
    count: int = 1

    def after(self) -> Array:
        return self.before - self.rate * self.moved()

    def moved(self) -> Array:
        return self.momentum * self.buffer + self.gradient + self.decay * self.before


def step_alternatives(step: SgdStep) -> Alternatives:
    """Of the parameter after one update."""
    found: dict[str, Callable[[], Array]] = {}
    if step.decay:
        found["weight_decay_missing"] = step._replace(decay=0.0).after
        found["weight_decay_scale twice"] = step._replace(decay=2 * step.decay).after
        found["weight_decay_scale apart from the momentum"] = lambda: (
            step._replace(decay=0.0).after() - step.rate * step.decay * step.before
        )
        if step.count > 1:
            found["weight_decay_scale divided by the batch"] = step._replace(decay=step.decay / step.count).after
            found["weight_decay_scale times the batch"] = step._replace(decay=step.decay * step.count).after
    elif step.configured:
        found["weight_decay_everywhere"] = step._replace(decay=step.configured).after
    found["momentum_form none"] = step._replace(momentum=0.0).after
    found["momentum_form Nesterov"] = lambda: (
        step.before - step.rate * (step.momentum * step.moved() + step.gradient + step.decay * step.before)
    )
    found["momentum_form gradient times 1 - momentum"] = step._replace(
        gradient=(1 - step.momentum) * step.gradient
    ).after
    if step.count > 1:
        for factor, words in ((step.count, "times"), (1 / step.count, "divided by")):
            found[f"loss_scale {words} {step.count}"] = step._replace(gradient=step.gradient * factor).after
            found[f"learning_rate_scale {words} {step.count}"] = step._replace(rate=step.rate * factor).after
    found["gradient_sign"] = step._replace(gradient=-step.gradient).after
    return found


def average_alternatives(history: Sequence[Array], start: Array, decay: float) -> Alternatives:
    """Of the moving average of `history`, which begins at `start`, after all of it."""

    def averaged(share: Callable[[int], float]) -> Callable[[], Array]:
        def compute() -> Array:
            value = start
            for step, new in enumerate(history, 1):
                value = share(step) * value + (1 - share(step)) * new
            return value

        return compute

    others = [other for other in (0.9, 0.99, 0.999, 0.9998, 0.9999) if other != decay]
    found = {f"moving_average_decay {other}": averaged(lambda step, d=other: d) for other in others}
    found["moving_average_decay warm-up (1 + n) / (10 + n)"] = averaged(lambda n: min(decay, (1 + n) / (10 + n)))
    found["moving_average_decay warm-up 1 - exp(-n / 2000)"] = averaged(lambda n: decay * (1 - np.exp(-n / 2000)))
    found["moving_average_decay no warm-up"] = averaged(lambda step: decay)
    found["moving_average_decay not moved"] = lambda: start
    return found


def moved_alternatives(start: Array, expected: Array, momentum: float) -> Alternatives:
    """Of a moving statistic after one step: `expected` is momentum * start + (1 - momentum) * batch."""
    batch = (np.asarray(expected, float) - momentum * start) / (1 - momentum)
    others = [share for share in (1 - momentum, 0.9, 0.99, 0.999, 0.97, 0.03) if abs(share - momentum) > 1e-9]
    found = {
        f"batch_norm_momentum {share:g}": lambda share=share: share * start + (1 - share) * batch for share in others
    }
    return found | {"batch_norm_training_mode not moved": lambda: start}
