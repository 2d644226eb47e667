"""Recordings without an experiment: every check that reads a recording, asked of folders of traces alone."""

from collections.abc import Sequence

import tensorflow as tf

from official.core.errors import UserError
from reproduction import report
from reproduction.experiment.subject import Subject
from reproduction.gates import BEFORE_TRAINING, run
from reproduction.originals import EVERY_CHECK
from reproduction.traces.check import unknown_files


def compare(subject: Subject, numbers: Sequence[int] = BEFORE_TRAINING) -> report.Report:
    """The gates that found a case. A table of the checks is printed, and the files that no check reads.

    Raises:
        UserError: nothing was compared.
    """
    tf.config.experimental.enable_tensor_float_32_execution(False)  # a GPU's 10 bits prove nothing to 1e-5
    results = tuple(gate for gate in run(subject, numbers) if gate.rows)
    if not any(row.outcome != "skip" for gate in results for row in gate.rows):
        folders = ", ".join(map(str, subject.traces))
        raise UserError(f"nothing below {folders} was compared; docs/traces.md describes the folder")
    proof = report.report_of(subject, "recordings", results)
    report.show_checks(proof, subject)
    for root in subject.traces:
        if unknown := unknown_files(EVERY_CHECK, root):
            print(f"Read by no check, and not compared: {', '.join(unknown)}")
    return proof
