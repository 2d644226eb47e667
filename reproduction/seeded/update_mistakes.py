"""What the stated formulas would give at an update with a known mistake, by cause (traces/causes/causes.py)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from official.core.config import Adam, AdamW, Config, Constant, Sgd, Trainer
from reproduction.restated import optimisers, training
from reproduction.restated.optimisers import ToSteps
from reproduction.restated.schedules import learning_rate

Array = Float64[np.ndarray, "..."]
Otherwise = Callable[[], training.Step]


class Before(NamedTuple):
    """What a step starts from, and its gradients."""

    weights: list[Array]
    statistics: list[Array]
    slots: dict[str, list[Array]]
    average: list[Array]
    gradients: list[Array]
    factors: Array  # of each micro-batch


class Situation(NamedTuple):
    """One update. `stated` gives it by the formulas; its arguments config, given, at and rules replace what follows."""

    trainer: Trainer
    before: Before
    groups: Sequence[optimisers.Group]
    number: int  # of the update, from 1
    stated: Callable[..., training.Step]
    to_steps: ToSteps

    def configured(self, **changed: object) -> Otherwise:
        return lambda: self.stated(config=self.trainer.model_copy(update=changed))

    def part(self, name: str, **changed: object) -> Otherwise:
        """With one part of the trainer configured otherwise."""
        return self.configured(**{name: _changed(getattr(self.trainer, name), **changed)})

    def grouped(self, **changed: object) -> Otherwise:
        return lambda: self.stated(rules=[group._replace(**changed) for group in self.groups])

    def given(self, **changed: object) -> Otherwise:
        return lambda: self.stated(given=self.before._replace(**changed))


def rate_mistakes(
    trainer: Trainer, numbers: Int64[np.ndarray, " steps"], to_steps: ToSteps
) -> Mapping[str, Callable[[], Float64[np.ndarray, " steps"]]]:
    """Learning rates of the updates `numbers`, by cause and variant."""
    schedule, total, parts = trainer.schedule, to_steps(trainer.duration), trainer.micro_batches

    def rates(steps: Int64[np.ndarray, " steps"], config: Config = schedule) -> Callable[[], np.ndarray]:
        return lambda: np.array([learning_rate(config, max(0, int(step)), total, to_steps) for step in steps])

    found = {
        "first_step_zero": rates(numbers - 1),
        "first_step_zero late": rates(numbers + 1),
        "schedule_position twice": rates(2 * numbers),
        "schedule_position half": rates(numbers // 2),
    }
    if parts > 2:
        found |= {"schedule_position parts": rates(parts * numbers), "schedule_position steps": rates(numbers // parts)}
    if schedule.burn_in is not None:
        found["warmup_missing"] = rates(numbers, _changed(schedule, burn_in=None))
        for power in (1.0, 2.0, 4.0):
            warm = _changed(schedule.burn_in, power=power)
            found[f"warmup_power {power:g}"] = rates(numbers, _changed(schedule, burn_in=warm))
    return found


def mistakes(at: Situation) -> dict[str, Otherwise]:
    """By cause and variant."""
    before, trainer = at.before, at.trainer
    zeros = {name: [np.zeros_like(one) for one in slot] for name, slot in before.slots.items()}
    rate = trainer.schedule.learning_rate
    return {
        **{f"learning_rate_scale {one}": at.part("schedule", learning_rate=one * rate) for one in (2, 0.5)},
        "first_step_zero": lambda: at.stated(at=max(1, at.number - 1)),
        **{f"schedule_position {one}": _with_rate_of(at, number) for one, number in _positions(at).items()},
        "resume_state slots": at.given(slots=zeros),
        "layer_rules_missing": at.grouped(rate=1.0, waits=0),
        "bias_group": at.grouped(is_bias=False),
        "loss_scale sums": at.given(factors=before.factors * len(before.factors)),
        "loss_scale over the parts twice": at.given(factors=before.factors / len(before.factors)),
        "gradient_clip": at.configured(clip_global_norm=None),
        "gradient_clip each": lambda: at.stated(given=before._replace(gradients=_clipped_alone(at))),
        **_of_burn_in(at),
        **_of_optimizer(at),
        **_of_average(at),
    }


def _changed(config: Config, **changed: object) -> Config:
    return config.model_copy(update=changed)


def _of_burn_in(at: Situation) -> dict[str, Otherwise]:
    burn_in = at.trainer.schedule.burn_in
    if burn_in is None:
        return {}
    others = {f"warmup_power {power:g}": _changed(burn_in, power=power) for power in (1.0, 2.0, 4.0)}
    return {cause: at.part("schedule", burn_in=one) for cause, one in {"warmup_missing": None, **others}.items()}


def _positions(at: Situation) -> dict[str, int]:
    return {"twice": 2 * at.number, "half": max(1, at.number // 2)}


def _with_rate_of(at: Situation, number: int) -> Otherwise:
    """With the schedule's rate of another update."""
    total = at.to_steps(at.trainer.duration)
    rate = learning_rate(at.trainer.schedule, number, total, at.to_steps)
    return at.configured(schedule=Constant.model_construct(learning_rate=rate, burn_in=None))


def _of_optimizer(at: Situation) -> dict[str, Otherwise]:
    optimizer, decay = at.trainer.optimizer, at.trainer.optimizer.weight_decay
    found = {
        "weight_decay_missing": at.part("optimizer", weight_decay=0.0),
        "weight_decay_scale over the batch": at.part("optimizer", weight_decay=decay / 64),
        "weight_decay_scale without the rate": lambda: at.part(
            "optimizer", weight_decay=decay / (at.stated().learning_rate or math.inf)
        )(),
        "weight_decay_everywhere": at.grouped(decays=True),
    }
    if isinstance(optimizer, Sgd):
        kept = optimizer.momentum
        found["momentum_form nesterov"] = at.part("optimizer", nesterov=not optimizer.nesterov)
        for value in (0.0, 1 - kept, 0.9, 0.99):
            found[f"momentum_form {value:g}"] = at.part("optimizer", momentum=value)
        dampened = at.trainer.model_copy(update={"optimizer": _changed(optimizer, weight_decay=decay * (1 - kept))})
        less = at.before._replace(factors=at.before.factors * (1 - kept))
        found["momentum_form dampened"] = lambda: at.stated(config=dampened, given=less)
    else:
        other = {Adam: AdamW, AdamW: Adam}[type(optimizer)]
        found["weight_decay_form"] = at.configured(optimizer=other(**optimizer.model_dump(exclude={"type"})))
        found["momentum_form betas"] = at.part("optimizer", beta1=optimizer.beta2, beta2=optimizer.beta1)
    return found


def _of_average(at: Situation) -> dict[str, Otherwise]:
    average = at.trainer.moving_average
    if average is None:
        return {}
    former, count = at.before.average, len(at.before.weights)

    def kept(change: Callable[[training.Step], Sequence[Array]]) -> Otherwise:
        def changed() -> training.Step:
            right = at.stated()
            return right._replace(average=list(change(right)))

        return changed

    others = {f"{decay:g}": {"decay": decay} for decay in (0.9999, 0.9998, 0.999, 0.99)}
    others |= {"warm-up": {"warm_up": not average.warm_up}, "start": {"start": None}}
    return {
        "moving_average_decay exchanged": kept(lambda right: exchanged(former, _values(at, right), right.average)),
        **{f"moving_average_decay {name}": at.part("moving_average", **one) for name, one in others.items()},
        "moving_average_missing never moves": kept(lambda right: former),
        "moving_average_missing the values": kept(lambda right: _values(at, right)),
        "moving_average_statistics by the other rule": at.part("moving_average", statistics=not average.statistics),
        "moving_average_statistics never move": kept(lambda right: [*right.average[:count], *former[count:]]),
    }


def _values(at: Situation, right: training.Step) -> list[Array]:
    """What the average follows."""
    return [*right.weights, *at.before.statistics]


def exchanged(former: Sequence[Array], values: Sequence[Array], right: Sequence[Array]) -> list[Array]:
    """The average with decay and 1 - decay exchanged: what is left of the way is gone, and the reverse."""
    return [old + new - one for old, new, one in zip(former, values, right, strict=True)]


def _clipped_alone(at: Situation) -> list[Array]:
    """Each weight's gradient clipped by its own norm, and by all parts' common factor before."""
    factor = float(np.mean(at.before.factors))
    clipped = [training.clip([factor * one], at.trainer.clip_global_norm)[0][0] for one in at.before.gradients]
    return [one / factor for one in clipped]
