"""The table of originals: whose recordings, weights and recipe an experiment is compared with."""

import dataclasses
from collections.abc import Mapping

from configs.experiment import Experiment
from reproduction.centernet.original import CENTERNET
from reproduction.experiment.original import Original
from reproduction.experiment.subject import Subject
from reproduction.traces.check import Check
from reproduction.yolo.original import DARKNET

ORIGINALS: Mapping[str, Original] = {
    "darknet": DARKNET,
    "centernet": CENTERNET,
}
EVERY_CHECK = tuple(check for original in ORIGINALS.values() for check in original.checks)


def original_of(experiment: Experiment) -> Original:
    """The original that `reproduces.original` names; where it names none, the first of the experiment's family."""
    of_family = [one for one in ORIGINALS.values() if one.family == experiment.task.type]
    named = experiment.reproduces.original if experiment.reproduces else ""
    return next((one for one in of_family if one.recognises(named)), of_family[0])


def with_original(subject: Subject) -> Subject:
    """The subject with its experiment's original; traces alone have none."""
    return dataclasses.replace(subject, original=subject.experiment and original_of(subject.experiment))


def checks_of(subject: Subject) -> tuple[Check, ...]:
    """The checks of the subject's original; of traces without an experiment, all that read recordings."""
    if subject.experiment is None:
        return tuple(check for check in EVERY_CHECK if check.files)
    return subject.original.checks
