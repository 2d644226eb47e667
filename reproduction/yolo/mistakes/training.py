"""One update of a parameter with a known mistake: the restated update, with one thing changed."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from official.core.config import Sgd
from reproduction.restated.optimisers import update
from reproduction.traces.causes.residual import Alternatives, Array


class SgdStep(NamedTuple):
    """One update of one parameter.

    gradient: of the batch's mean loss. decays: whether the original decays it. count: what a sum may be divided by
    (images, subdivisions, replicas).
    """

    config: Sgd
    before: Float[np.ndarray, "*parameter"]
    gradient: Float[np.ndarray, "*parameter"]
    buffer: Float[np.ndarray, "*parameter"]
    rate: float
    decays: bool
    count: int = 1

    def after(self) -> Float[np.ndarray, "*parameter"]:
        """The parameter after the update."""
        given = [self.before], [self.gradient], {"momentum": [self.buffer]}, [self.decays], [self.rate]
        return update(self.config, *given, step=1)[0][0]

    def configured(self, **changed: object) -> "SgdStep":
        return self._replace(config=self.config.model_copy(update=changed))


def step_alternatives(step: SgdStep) -> Alternatives:
    """The parameter after one update with each mistake."""
    found: dict[str, Callable[[], Array]] = {}
    decay, momentum, count = step.config.weight_decay, step.config.momentum, step.count
    if decay and step.decays:
        without = step.configured(weight_decay=0.0)
        found["weight_decay_missing"] = without.after
        found["weight_decay_scale twice"] = step.configured(weight_decay=2 * decay).after
        found["weight_decay_scale apart from the momentum"] = lambda: without.after() - step.rate * decay * step.before
        if count > 1:
            found["weight_decay_scale divided by the batch"] = step.configured(weight_decay=decay / count).after
            found["weight_decay_scale times the batch"] = step.configured(weight_decay=decay * count).after
    elif decay:
        found["weight_decay_everywhere"] = step._replace(decays=True).after
    found["momentum_form none"] = step.configured(momentum=0.0).after
    found["momentum_form Nesterov"] = step.configured(nesterov=True).after
    found["momentum_form gradient times 1 - momentum"] = step._replace(gradient=(1 - momentum) * step.gradient).after
    if count > 1:
        for factor, words in ((count, "times"), (1 / count, "divided by")):
            found[f"loss_scale {words} {count}"] = step._replace(gradient=step.gradient * factor).after
            found[f"learning_rate_scale {words} {count}"] = step._replace(rate=step.rate * factor).after
    found["gradient_sign"] = step._replace(gradient=-step.gradient).after
    return found
