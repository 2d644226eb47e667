"""The typed vocabulary of what the ground floor offers: runtime, trainer, optimiser, schedule.

Every model here is frozen and rejects unknown keys. `configs/` composes these with the detector families' own words.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


class Config(pydantic.BaseModel):
    """Base of every configuration: immutable, and an unknown key is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def from_saved(cls, data: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """(the plain data of one file in today's words, what was renamed): an older version may have saved it."""
        return data, ""


def type_or(default: str) -> Callable[[Any], str]:
    """For a union whose `type` may be left out: which of its members is meant."""
    return lambda value: value.get("type", default) if isinstance(value, dict) else getattr(value, "type", default)


class Runtime(Config):
    """Where and how precisely the run computes."""

    device: Literal["auto", "tpu", "gpu", "cpu"] = "auto"
    tpu: str = Field("", description="Name of a Cloud TPU, or 'local' on a TPU VM; empty: ask the environment.")
    tpu_zone: str = ""
    tpu_project: str = ""
    wait_for_workers: PositiveFloat = Field(
        300.0, description="Seconds until all machines of TF_CONFIG or Slurm must answer."
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Of the network; losses stay float32.")
    seed: NonNegativeInt = 0
    deterministic: bool = Field(True, description="Same weights, bit for bit, from the same seed on the same device.")


class Duration(Config):
    """A length of training in exactly one unit."""

    steps: PositiveInt | None = None
    epochs: PositiveFloat | None = None
    examples: PositiveInt | None = None

    @pydantic.model_validator(mode="after")
    def _exactly_one(self) -> "Duration":
        given = [name for name in ("steps", "epochs", "examples") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a duration is given in exactly one of steps, epochs or examples, not in {given or 'none'}"
            )
        return self

    def in_steps(self, batch_size: int, examples_per_epoch: int) -> int:
        """This duration in whole optimiser steps, at least 1, for a global batch of `batch_size`."""
        if self.steps is not None:
            return self.steps
        examples = self.examples if self.examples is not None else self.epochs * examples_per_epoch
        return max(1, round(examples / batch_size))


class WarmUp(Config):
    """Straight lines over `length`, to the schedule's rate and the optimiser's momentum; the first update is at 0.

    Kernels and batch-norm's scales start from the rate 0 (Scaled-YOLOv4 and YOLOv7, train.py).
    """

    length: Duration
    bias_learning_rate: NonNegativeFloat = Field(0.1, description="Where biases and batch-norm's offsets start.")
    momentum: float = Field(0.8, ge=0, lt=1, description="Where momentum starts.")


class Sgd(Config):
    """Stochastic gradient descent as Darknet and PyTorch do it: decay enters the momentum buffer, kernels only."""

    type: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 0.0005
    nesterov: bool = Field(False, description="Steps by gradient + momentum * buffer (PyTorch), not by the buffer.")
    warm_up: WarmUp | None = Field(None, description="In place of the schedule's burn_in.")


class Adam(Config):
    """Adam as Darknet does it (adam=1): decay enters the gradient before its moments, of biases and scales as well.

    With weight_decay 0 it is PyTorch's Adam; Keras has its epsilon elsewhere.
    """

    type: Literal["adam"] = "adam"
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    epsilon: PositiveFloat = Field(
        1e-8, description="Beside the root of the mean gradient's square; Darknet's eps is beside that of the sum's."
    )
    weight_decay: NonNegativeFloat = 0.0005


class AdamW(Config):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019), kernels only."""

    type: Literal["adamw"] = "adamw"
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    epsilon: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.01


class BurnIn(Config):
    """Warm-up: rate * (step / length) ** power for steps 1 .. length - 1 (Darknet's power is 4)."""

    length: Duration
    power: float = Field(4.0, ge=0)


class Policy(Config):
    """What every schedule has: the rate it starts from, and a warm-up in whose steps nothing else of it counts."""

    learning_rate: PositiveFloat
    burn_in: BurnIn | None = None


class Constant(Policy):
    type: Literal["constant"] = "constant"


class Drop(Config):
    """From step `at` on, the learning rate is multiplied by `scale`."""

    at: Duration
    scale: PositiveFloat


class Steps(Policy):
    """A drop waits for those before it in the list."""

    type: Literal["steps"] = "steps"
    drops: tuple[Drop, ...] = ()


class Step(Policy):
    """The rate is multiplied by `scale` again and again, after every `every`."""

    type: Literal["step"] = "step"
    every: Duration
    scale: PositiveFloat


class Exponential(Policy):
    """rate * gamma ** step"""

    type: Literal["exp"] = "exp"
    gamma: PositiveFloat


class Polynomial(Policy):
    """rate * (1 - step / steps of the run) ** power"""

    type: Literal["poly"] = "poly"
    power: float = Field(4.0, ge=0)


class Sigmoid(Policy):
    """rate / (1 + exp(gamma * (step - middle)))"""

    type: Literal["sigmoid"] = "sigmoid"
    gamma: float
    middle: Duration


class Sgdr(Policy):
    """Half a cosine from the rate to `minimum`, again and again (Loshchilov and Hutter, 2017).

    The first cycle takes `cycle`, each other one `multiplier` times as long as the one before it.
    """

    type: Literal["sgdr"] = "sgdr"
    cycle: Duration
    multiplier: PositiveInt = 2
    minimum: NonNegativeFloat = 1e-5


class Random(Policy):
    """rate * u ** power, with u drawn anew from 0..1 for each step, by the run's seed."""

    type: Literal["random"] = "random"
    power: float = Field(4.0, ge=0)


class Cosine(Policy):
    """Half a cosine from the rate to `learning_rate * final_fraction` over what `burn_in` leaves of the run."""

    type: Literal["cosine"] = "cosine"
    final_fraction: float = Field(0.01, ge=0, le=1)
    held: Duration | None = Field(
        None, description="The rate changes only after so long (PyTorch's schedulers step once an epoch: epochs: 1)."
    )


Optimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="type")]
Schedule = Annotated[
    Constant | Steps | Step | Exponential | Polynomial | Sigmoid | Sgdr | Random | Cosine, Field(discriminator="type")
]


class MovingAverage(Config):
    """Exponential moving average of the weights, which is evaluated and exported in their place."""

    decay: float = Field(0.9998, gt=0, lt=1)
    warm_up: bool = Field(True, description="The decay is min(decay, (1 + n) / (10 + n)) at step n after `start`.")
    start: Duration | None = Field(None, description="Until then the average is the weights themselves; none: at once.")
    statistics: bool = Field(True, description="Batch-norm's moving statistics are averaged, too; false: as they are.")
    replaces_weights_at: Duration | None = Field(
        None,
        description="In place of what this update would make of them, the weights become their average so far, and "
        "train on from it without one: from here on the weights themselves are evaluated (Darknet's ema_alpha, 1000 "
        "updates before the end). None: the average goes on to the end beside them.",
    )


Metric = Literal[
    "AP", "AP50", "AP75", "APs", "APm", "APl", "darknet_mAP50", "darknet_mAP50_11", "darknet_mAP50_101"
]  # COCO's, and Darknet's own by the area under the curve, or at 11 or 101 recalls


class Checkpoint(Config):
    every: Duration
    keep: PositiveInt = Field(3, description="The newest N are kept, and the best one beside them.")
    best_metric: Metric = "AP"


class Initialise(Config):
    """Start from other weights: those whose name and shape agree are loaded, the rest is listed."""

    checkpoint: str = Field(
        description="A run folder, one checkpoint folder in it, or a file that the task reads (.weights, .conv.N of "
        "Darknet; .weights.h5, .keras)."
    )
    prefer_moving_average: bool = Field(True, description="Of a checkpoint that has both.")
    start_step: NonNegativeInt | Literal["from_file"] = Field(
        0,
        description="Steps that count as done: learning rate, data and duration go on from there. from_file: as many "
        "as the weights have seen (what Darknet does without -clear).",
    )


class LayerRule(Config):
    """What the layers whose name matches `name` do otherwise. A layer that several rules match obeys them all."""

    name: str = Field(description="A pattern (*, ?, [0-3]).")
    learning_rate: NonNegativeFloat = Field(1.0, description="Multiplies the schedule's.")
    no_gradient: Duration | None = Field(
        None,
        description="So long from the start the gradient is zero, while weight decay, momentum and batch-norm's "
        "statistics go on (Darknet's stopbackward=N with N > 1).",
    )


class Trainer(Config):
    duration: Duration
    micro_batches: PositiveInt = Field(
        1, description="Darknet's subdivisions: gradients of N parts of a batch are added."
    )
    steps_per_loop: PositiveInt = Field(10, description="Steps the device makes before the host looks.")
    optimizer: Optimizer
    schedule: Schedule
    clip_global_norm: PositiveFloat | None = Field(None, description="Of the whole gradient, after its reduction.")
    moving_average: MovingAverage | None = None
    freeze: tuple[str, ...] = Field(
        (), description="Layers whose name matches one of these patterns (*, ?, [0-3]) do not train."
    )
    layers: tuple[LayerRule, ...] = ()
    initialise: Initialise | None = None
    checkpoint: Checkpoint
    evaluate_every: Duration | None = Field(None, description="In train_and_eval; none: at the end only.")
    summary_every: Duration = Duration(steps=100)

    @pydantic.model_validator(mode="after")
    def _one_warm_up(self) -> "Trainer":
        if isinstance(self.optimizer, Sgd) and self.optimizer.warm_up and self.schedule.burn_in:
            raise ValueError(
                "optimizer.warm_up and schedule.burn_in both warm the learning rate up; expected at most one: "
                "remove schedule.burn_in (set it to null)"
            )
        return self
