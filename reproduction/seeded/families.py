"""The table of families for comparisons with the stated formulas, by `task.type`."""

from collections.abc import Mapping

from reproduction.centernet.seeded import CenterNet
from reproduction.experiment.own import Own
from reproduction.seeded.family import Family
from reproduction.yolo.seeded import Yolo

FAMILIES: Mapping[str, type] = {"yolo": Yolo, "centernet": CenterNet}


def family_of(own: Own) -> Family:
    """That of the experiment."""
    return FAMILIES[own.experiment.task.type](own)
