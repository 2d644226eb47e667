"""My own CenterNet as an original: what it recorded of its decoder, and its recipe."""

from collections.abc import Iterator

import tensorflow as tf

from reproduction.centernet.original import CENTERNET
from reproduction.experiment.original import Recipe, RecipeRules
from reproduction.experiment.subject import Subject
from reproduction.traces.case import Case, Row
from reproduction.traces.check import Check
from reproduction.traces.compare import Absolute


def decoding(case: Case, subject: Subject) -> Iterator[Row]:
    """Boxes and scores of the recorded maps, by the experiment's own decoder."""
    maps = [tf.constant(case.trace.array(name)) for name in ("hm", "wh", "reg")]
    boxes, scores = subject.own.decode(maps)
    yield case.compare("boxes", boxes, Absolute(bound=1e-5))
    yield case.compare("scores", scores, Absolute(bound=1e-6))


def read(subject: Subject) -> Recipe:
    """Mine has the experiment's own numbers, but for its rate."""
    numbers = subject.experiment.model_dump(mode="json")
    numbers["trainer"]["schedule"]["learning_rate"] = 0.002
    return Recipe(numbers)


MINE = CENTERNET._replace(
    name="mine",
    recognises=lambda text: text == "mine",
    checks=(Check("mine_decode", "peaks and boxes of mine", 3, decoding, "mine_*.npz", needed=True, about="boxes"),),
    recipe=RecipeRules(read, named_by="the word mine"),
)
