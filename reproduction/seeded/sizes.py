"""Gate 7: the input sizes that the run trains at, and which step has which."""

from collections.abc import Iterator

import numpy as np

from dataloaders.schedule.sizes import plan_sizes
from reproduction.experiment.subject import Subject
from reproduction.restated.sizes import possible
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.compare import Exact

BLOCKS = 40


def sizes(case: Case, subject: Subject) -> Iterator[Row]:
    """The sizes, how long each is kept, and that the run begins (and ends, where it should) with the largest."""
    experiment, own = subject.experiment, subject.own
    config = experiment.task.data.train.multi_scale
    if config is None:
        yield case.skip("sizes", "the experiment trains at one size")
        return
    base, total = tuple(experiment.task.model.input_size), own.to_steps(experiment.trainer.duration)
    plan = plan_sizes(base, config, experiment.runtime.seed, own.to_steps)
    stated = possible(base, config.coefficient)
    if config.sizes != "all":
        wanted = min(config.sizes, len(stated))
        stated = [stated[round(place)] for place in np.linspace(0, len(stated) - 1, wanted).tolist()]
    swapped = [size[::-1] for size in stated]
    clue = Clue("schedule", "", {"height_width_swapped": lambda: np.array(swapped)})
    yield case.compare("sizes", np.array(plan.sizes), Exact(), np.array(stated), clue)
    every = own.to_steps(config.every)
    drawn = [plan.at(step) for step in range(min(BLOCKS * every, total))]
    changes = [step for step in range(1, len(drawn)) if drawn[step] != drawn[step - 1]]
    inside = [float(step % every != 0) for step in changes]
    if inside or len(drawn) == BLOCKS * every:  # a run of few blocks may keep to one size
        none = np.zeros(max(1, len(inside)))
        yield case.compare("changes within a block", inside or [1.0], Exact(), none, Clue("schedule"))
    yield case.compare("first size", np.array(drawn[0]), Exact(), np.array(stated[-1]), Clue("schedule"))
    if config.largest_from:
        last = plan.at(total - 1)
        yield case.compare("last size", np.array(last), Exact(), np.array(stated[-1]), Clue("schedule"))
    own.note("task.data.train.multi_scale")
