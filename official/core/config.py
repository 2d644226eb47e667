"""The typed vocabulary of what the ground floor offers: runtime, trainer, optimiser, schedule, evaluation protocol.

Every model here is frozen and rejects unknown keys. `configs/` composes these with the detector families' own words.
"""

from typing import Annotated, Literal

import pydantic
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


class Config(pydantic.BaseModel):
    """Base of every configuration: immutable, and an unknown key is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Runtime(Config):
    """Where and how precisely the run computes."""

    device: Literal["auto", "tpu", "gpu", "cpu"] = "auto"
    tpu: str = Field("", description="Name of a Cloud TPU, or 'local' on a TPU VM; empty: ask the environment.")
    tpu_zone: str = ""
    tpu_project: str = ""
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


class Sgd(Config):
    """Stochastic gradient descent with momentum as Darknet does it: decay enters the momentum buffer, kernels only."""

    type: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)
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
    power: PositiveFloat = 4.0


class Constant(Config):
    type: Literal["constant"] = "constant"
    learning_rate: PositiveFloat
    burn_in: BurnIn | None = None


class Drop(Config):
    """From `at` on, the learning rate is multiplied by `scale`."""

    at: Duration
    scale: PositiveFloat


class Steps(Config):
    type: Literal["steps"] = "steps"
    learning_rate: PositiveFloat
    burn_in: BurnIn | None = None
    drops: tuple[Drop, ...] = ()


class Cosine(Config):
    """Half a cosine from `learning_rate` to `learning_rate * final_fraction` over the whole run."""

    type: Literal["cosine"] = "cosine"
    learning_rate: PositiveFloat
    burn_in: BurnIn | None = None
    final_fraction: float = Field(0.01, ge=0, le=1)


Optimizer = Annotated[Sgd | AdamW, Field(discriminator="type")]
Schedule = Annotated[Constant | Steps | Cosine, Field(discriminator="type")]


class MovingAverage(Config):
    """Exponential moving average of the weights; with `warm_up` the decay is min(decay, (1 + step) / (10 + step))."""

    decay: float = Field(0.9998, gt=0, lt=1)
    warm_up: bool = True


Metric = Literal["AP", "AP50", "AP75", "APs", "APm", "APl"]


class Checkpoint(Config):
    every: Duration
    keep: PositiveInt = Field(3, description="The newest N are kept, and the best one beside them.")
    best_metric: Metric = "AP"


class Initialise(Config):
    """Start from another run's weights: those whose name and shape agree are loaded, the rest is listed."""

    checkpoint: str = Field(description="A run folder, or one checkpoint folder in it.")
    prefer_moving_average: bool = True


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
        (), description="Layers whose name matches one of these patterns (*, ?) do not train."
    )
    initialise: Initialise | None = None
    checkpoint: Checkpoint
    evaluate_every: Duration | None = Field(None, description="In train_and_eval; none: at the end only.")
    summary_every: Duration = Duration(steps=100)


class Expected(Config):
    metric: Metric
    value: float
    tolerance: NonNegativeFloat = Field(description="Absolute, in the metric's own unit (0..1).")
    images: PositiveInt | None = Field(
        None, description="Of the split it was measured on; on others it proves nothing."
    )


class Reproduces(Config):
    """What this experiment claims to reproduce, and when it may be called reproduced."""

    paper: str
    code: str = Field("", description="The original's repository and commit.")
    expected: tuple[Expected, ...] = ()
    hardware: str = ""
    time: str = ""


class Protocol(Config):
    """How detections are made and scored. Stored beside every number, and embedded in every export."""

    resize: Literal["stretch", "letterbox"] = "letterbox"
    interpolation: Literal["bilinear"] = Field(
        "bilinear", description="Half-pixel centres, no antialiasing, rounded to uint8."
    )
    padding_value: int = Field(128, ge=0, le=255, description="Grey level around a letterboxed image (Darknet: 0.5).")
    score_floor: float = Field(0.001, ge=0, lt=1)
    nms: Literal["per_class_iou"] = "per_class_iou"
    nms_threshold: float = Field(0.45, gt=0, le=1)
    candidates: PositiveInt = Field(1000, description="The best (box, class) pairs of an image that enter NMS.")
    detections_per_image: PositiveInt = 100
