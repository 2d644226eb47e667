"""The table of originals: whose recordings an experiment is compared with, and by which checks."""

from collections.abc import Mapping

from reproduction.centernet import original as centernet_checks
from reproduction.experiment.subject import Subject
from reproduction.traces.check import Check
from reproduction.yolo import original as darknet_checks

CHECKS: Mapping[str, tuple[Check, ...]] = {"darknet": darknet_checks.CHECKS, "centernet": centernet_checks.CHECKS}
# Which original an experiment's family is compared with.
OF_FAMILY: Mapping[str, str] = {"yolo": "darknet", "centernet": "centernet"}
EVERY_CHECK = tuple(check for checks in CHECKS.values() for check in checks)


def checks_of(subject: Subject) -> tuple[Check, ...]:
    """The checks of the subject's original; of traces without an experiment, all that read recordings."""
    if subject.experiment is None:
        return tuple(check for check in EVERY_CHECK if check.files)
    return CHECKS[OF_FAMILY[subject.experiment.task.type]]
