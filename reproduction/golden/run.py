"""Runs kinds of comparisons over a folder of recorded traces, and sums up what came out."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from official.core.errors import UserError, first_line
from official.core.progress import track
from reproduction.golden.case import Case, Kind, Row

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """All rows of one kind. `note` says why there is none, or why all are skipped."""

    kind: Kind
    rows: tuple[Row, ...]
    note: str = ""

    def outcomes(self) -> dict[str, str]:
        """Of each case: fail where a quantity failed, skip where none was compared, else pass."""
        outcomes: dict[str, str] = {}
        for row in self.rows:
            worst = {outcomes.get(row.case, "skip"), row.outcome}
            outcomes[row.case] = next(outcome for outcome in ("fail", "pass", "skip") if outcome in worst)
        return outcomes

    def counts(self) -> dict[str, int]:
        """Cases that were `checked`, those of them that `failed`, and those `skipped`."""
        outcomes = list(self.outcomes().values())
        skipped = outcomes.count("skip")
        return {"checked": len(outcomes) - skipped, "skipped": skipped, "failed": outcomes.count("fail")}


def run(kinds: Mapping[str, Kind], root: Path, assets: Path | None) -> dict[str, Result]:
    """Every kind over the folder `root`; `assets` is a folder with weights and images, below it in any depth."""
    if not root.is_dir():
        raise UserError(f"--root {root}: no such folder; expected one laid out as docs/traces.md says")
    if assets is not None and not assets.is_dir():
        raise UserError(f"--assets {assets}: no such folder; expected one that holds weights (and images) in any depth")
    work = {name: list(cases_of(kind, root, assets)) for name, kind in kinds.items()}
    jobs = [(name, case) for name, cases in work.items() for case in cases]
    rows: dict[str, list[Row]] = {name: [] for name in kinds}
    for name, case in track(jobs, "comparing"):
        rows[name] += rows_of(kinds[name], case)
    return {name: Result(kind, tuple(rows[name]), _note(kind, root, work[name])) for name, kind in kinds.items()}


def unknown_files(kinds: Mapping[str, Kind], root: Path) -> list[str]:
    """The traces below the root that are of no kind, by their paths from there."""
    patterns = [pattern for kind in kinds.values() for pattern in (kind.files, *kind.beside)]
    known = {path for pattern in patterns for path in root.glob(pattern)}
    return sorted(str(path.relative_to(root)) for path in root.rglob("*.npz") if path not in known)


def as_json(results: Mapping[str, Result], root: Path, unknown: Sequence[str]) -> str:
    """Of each kind the number of cases checked, skipped and failed, and all rows with their metrics."""
    kinds: dict[str, Any] = {
        name: {
            "what": result.kind.what,
            "files": result.kind.files,
            **result.counts(),
            "note": result.note,
            # Through text: only there infinity becomes a string.
            "rows": [json.loads(row.model_dump_json(exclude_none=True, exclude={"maps"})) for row in result.rows],
        }
        for name, result in results.items()
    }
    return json.dumps({"root": str(root), "unknown": list(unknown), "kinds": kinds}, indent=1, allow_nan=False)


def cases_of(kind: Kind, root: Path, assets: Path | None) -> Iterator[Case | Row]:
    """The cases of a kind; a row instead for a file whose cases cannot be told."""
    for path in sorted(root.glob(kind.files)):
        try:
            parts = kind.parts(Case(path))
        except (UserError, OSError) as error:
            yield Case(path).fail("all", str(error))
            continue
        yield from (Case(path, part, assets, kind.about) for part in parts)


def rows_of(kind: Kind, case: Case | Row) -> list[Row]:
    if isinstance(case, Row):
        return [case]
    if kind.needs_assets and case.assets is None:
        return [case.skip("all", "needs weights and images: give --assets DIR")]
    rows = []
    try:
        rows += kind.check(case)
        return rows or [case.fail("all", "nothing was compared")]
    except (UserError, OSError) as error:
        return [*rows, case.fail("all", str(error))]
    except Exception as error:  # one case that breaks the product must not hide the others
        _LOG.debug("%s", case.name, exc_info=True)
        return [*rows, case.fail("all", f"{type(error).__name__}: {first_line(error)}")]


def _note(kind: Kind, root: Path, cases: list[Case | Row]) -> str:
    if cases:
        return ""
    if any(root.glob(kind.files)):
        return f"no case found: none in the files {kind.files}"
    return f"no case found: there is no file {kind.files} below {root}"
