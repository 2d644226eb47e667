"""What is being proven: an experiment, and where its original's traces, weights and recipe lie."""

import fnmatch
import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.experiment import Experiment
from official.core.claims import Reproduces
from official.core.config_io import load_config
from official.core.errors import UserError
from reproduction.experiment.original import Original
from reproduction.experiment.own import Own
from reproduction.traces.case import Case, Row
from reproduction.traces.check import Check, cases_of


class SubjectError(UserError):
    """What should be proven cannot be found."""


@dataclass(frozen=True)
class Subject:
    """What the gates look at.

    experiment: None for traces alone; gates that need one say so, and no case is left out as foreign to it.
    traces: folders laid out as docs/traces.md says.
    assets: a folder that holds the original's weights, recipe and images, in any depth.
    run: the folder of a training run, for the gates that judge one.
    cases: patterns of the names of cases; the others are left out.
    original: the experiment's (`originals.with_original`); None for traces alone.
    """

    experiment: Experiment | None = None
    traces: tuple[Path, ...] = ()
    assets: Path | None = None
    run: Path | None = None
    cases: tuple[str, ...] = ()
    original: Original | None = None
    computed: dict[Callable, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def claims(self) -> Reproduces:
        """What the experiment says it reproduces."""
        nothing = Reproduces(paper="")
        return (self.experiment.reproduces or nothing) if self.experiment else nothing

    @functools.cached_property
    def weights(self) -> Path | None:
        """The original's weights; None where the experiment names none, or they are not at hand."""
        return self.find(self.claims.weights)

    def find(self, name: str) -> Path | None:
        """A file by its path, or by the end of its path below the assets, or below the traces.

        Raises:
            SubjectError: several files there end so.
        """
        if not name:
            return None
        if Path(name).is_file():
            return Path(name)
        for root in (self.assets, *self.traces):
            found = sorted(root.rglob(name)) if root else []
            if len(found) > 1:
                listed = ", ".join(str(path.relative_to(root)) for path in found[:3])
                raise SubjectError(f"reproduces names {name!r}, but below {root} there are {listed}; name more of it")
            if found:
                return found[0]
        return None

    def once(self, compute: Callable[["Subject"], Any]) -> Any:
        """What `compute` makes of this subject, computed the first time."""
        if compute not in self.computed:
            self.computed[compute] = compute(self)
        return self.computed[compute]

    @functools.cached_property
    def own(self) -> Own:
        """The objects that a training of the experiment runs; it notes which of them a check has called."""
        return Own(self.experiment, self.original)

    def cases_of(self, check: Check) -> Iterator[Case | Row]:
        """The cases of a check in all folders of traces; a row instead for a file that cannot be read.

        A check that needs no recording has one case, called by its own name.
        """
        found = [Case(Path(check.name), about=check.about)] if not check.files else self._recorded(check)
        for case in found:
            called = case.case if isinstance(case, Row) else case.name
            if not self.cases or any(fnmatch.fnmatch(called, pattern) for pattern in self.cases):
                yield case

    def _recorded(self, check: Check) -> Iterator[Case | Row]:
        for root in self.traces:
            yield from cases_of(check, root, self.assets)

    def need_experiment(self) -> Experiment:
        """The experiment; NoInputsError where there is none."""
        if self.experiment is None:
            raise NoInputsError("needs an experiment: give --config, or --darknet")
        return self.experiment

    def missing(self, pattern: str) -> str:
        """What to say of traces that are not there."""
        where = ", ".join(map(str, self.traces)) or "any folder: give --traces DIR, or reproduces.traces"
        return f"no recorded case {pattern} for this model in {where}; docs/traces.md says how to record one"


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def claimed_experiment(config: str, weights: str | None, overrides: list[str]) -> Experiment:
    """The experiment of a file, with other weights of the original where they are named.

    Raises:
        ConfigError: it cannot be used.
    """
    named = [f"reproduces.weights={weights}"] if weights else []
    return load_config(config, Experiment, [*overrides, *named])


def subject_of(
    experiment: Experiment | None, traces: list[str], assets: str | None, run: str | None, cases: list[str]
) -> Subject:
    """An experiment and its folders; traces are those that it names itself, unless others are given.

    Without an experiment the subject is the traces alone.

    Raises:
        SubjectError: a folder is not there.
    """
    claimed = experiment.reproduces.traces if experiment and experiment.reproduces else ()
    named = {"traces": traces or claimed, "assets": [assets] if assets else [], "run": [run] if run else []}
    for what, folders in named.items():
        for folder in folders:
            if not Path(folder).is_dir():
                where = " (or reproduces.traces)" if what == "traces" else ""
                raise SubjectError(f"{folder}: no such folder; expected one for {what}: --{what}{where} names it")
    return Subject(
        experiment,
        tuple(map(Path, traces or claimed)),
        Path(assets) if assets else None,
        Path(run) if run else None,
        tuple(cases),
    )
