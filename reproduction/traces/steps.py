"""Recorded training steps: the trainer's own step for one batch, and recorded parameters in the shape of ours."""

import keras
import numpy as np
from jaxtyping import Float

from official.core.build_step import build_step, initial_state
from official.core.config import Duration, Trainer
from official.core.step import State, TrainStep
from official.core.task import Objective
from reproduction.traces.trace import Trace


def train_step(task: Objective, model: keras.Model, trainer: Trainer) -> tuple[TrainStep, State]:
    """The trainer's own step, and the state it begins with; durations are in steps."""
    return build_step(task, model, trainer, in_steps, seed=0), initial_state(model, trainer)


def in_steps(duration: Duration) -> int:
    """A duration of a recorded run, where all durations are numbers of updates."""
    return duration.in_steps(1, 1)


def parameter(trace: Trace, name: str, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """A recorded parameter, or what is shaped as one; a flat array of as many numbers is taken, too."""
    array = trace.array(name, dtype=np.floating)
    return array.reshape(shape) if array.shape == (np.prod(shape),) else trace.array(name, shape, np.floating)
