"""The doctor's round: both splits read and decoded, every examination made, all in one result."""

from typing import Any, NamedTuple

from configs.experiment import Experiment
from tools.doctor.anchors import Anchors, anchor_findings, examine_anchors
from tools.doctor.boxes import Statistics, box_findings, class_findings, statistics, trained_sides
from tools.doctor.duplicates import duplicate_findings
from tools.doctor.files import files_findings
from tools.doctor.findings import SEVERITIES, Finding, by_severity
from tools.doctor.formats import format_findings
from tools.doctor.splits import SplitData, read_split


class Diagnosis(NamedTuple):
    """All that is known of an experiment's data."""

    splits: tuple[SplitData, ...]  # the first trains
    statistics: tuple[Statistics, ...]
    anchors: Anchors
    findings: tuple[Finding, ...]  # faults first

    @property
    def has_faults(self) -> bool:
        return any(finding.severity == "fault" for finding in self.findings)

    def counts(self) -> dict[str, int]:
        return {kind: sum(finding.severity == kind for finding in self.findings) for kind in SEVERITIES}

    def as_dict(self) -> dict[str, Any]:
        """JSON values; every place of every finding."""
        pairs = zip(self.splits, self.statistics, strict=True)
        return {
            "counts": self.counts(),
            "findings": [finding.as_dict() for finding in self.findings],
            "splits": {data.name: {"where": data.stated.where, **stats.as_dict()} for data, stats in pairs},
            "anchors": self.anchors.as_dict(),
        }


def diagnose(experiment: Experiment, anchors: int | None = None) -> Diagnosis:
    """Examines the data of an experiment.

    Args:
        anchors: how many k-means chooses; none: as many as the head has.

    Raises:
        FileNotFoundError, DataError: an annotation file is missing or malformed.
    """
    task = experiment.task
    input_size, protocol = task.model.input_size, task.evaluation
    named = {"train": task.data.train, "validation": task.data.validation}
    splits = tuple(read_split(name, split, task.data.classes) for name, split in named.items())
    of_splits = tuple(statistics(data, input_size, protocol) for data in splits)
    sides = trained_sides(splits[0], input_size, protocol)
    of_anchors = examine_anchors(task.model.head, sides, anchors, experiment.runtime.seed)
    findings = [*duplicate_findings(splits), *class_findings(splits, of_splits)]
    for data in splits:
        findings += [*format_findings(data), *files_findings(data), *box_findings(data, input_size, protocol)]
    findings += anchor_findings(of_anchors, splits[0].name)
    return Diagnosis(splits, of_splits, of_anchors, tuple(by_severity(findings)))
