"""What a proof is asked for on the command line, from the flags of reproduce.py."""

from pathlib import Path

from absl import flags

from configs.experiment import Experiment
from official.core.errors import UserError
from reproduction import foreign, recordings, report
from reproduction.experiment.subject import claimed_experiment, subject_of
from reproduction.gates import numbers_in, run
from reproduction.originals import ORIGINALS, with_original


def prove(asked: flags.FlagValues) -> report.Report:
    """A report of the experiment, the recordings alone, or the Keras model that is named.

    Raises UserError where nothing is named, or half of what belongs together.
    """
    if bool(asked.compare) != bool(asked.trace):
        raise UserError("--compare model.keras and --trace x.npz go together")
    if asked.compare:
        return foreign.compare(asked.compare, asked.trace, asked.map)
    numbers, experiment = numbers_in(asked.gates), _experiment(asked)
    subject = with_original(subject_of(experiment, asked.traces, asked.assets, asked.run, asked.cases))
    if experiment is None:
        return recordings.compare(subject, numbers)
    return report.report_of(subject, Path(asked.config or asked.darknet).stem, run(subject, numbers))


def _experiment(asked: flags.FlagValues) -> Experiment | None:
    """The experiment that is named; none where there are traces alone."""
    if asked.config:
        return claimed_experiment(asked.config, asked.weights, asked.set)
    if asked.darknet:
        return ORIGINALS["darknet"].experiment_of(asked.darknet, asked.weights, asked.set)
    if not asked.traces:
        raise UserError("nothing to prove: give --config X.yaml or --darknet x.cfg, --traces DIR alone, or --compare")
    return None
