"""The table of families for comparisons with the stated formulas, by `task.type`."""

from collections.abc import Mapping

from reproduction.own import Own
from reproduction.seeded.centernet import CenterNet
from reproduction.seeded.family import Family
from reproduction.seeded.yolo import Yolo

FAMILIES: Mapping[str, type] = {"yolo": Yolo, "centernet": CenterNet}


def family_of(own: Own) -> Family:
    """That of the experiment."""
    return FAMILIES[own.experiment.task.type](own)
