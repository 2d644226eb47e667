"""Checkpoints of a run: a folder each, complete only when its manifest is there; the newest N and the best are kept.

A write that is killed leaves a folder without a manifest, which is ignored and later removed. The manifest is written
last, so this holds on any file system, object stores included, where a rename is not atomic.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from official.core.errors import UserError

MANIFEST = "manifest.json"
BEST = "best.json"
Variables = Mapping[str, tf.Variable]


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message names it, what is wrong and what to do."""


@dataclass(frozen=True)
class CheckpointFolder:
    """The checkpoints of one run, in `directory`."""

    directory: str
    keep: int = 3

    def save(self, step: int, groups: Mapping[str, Variables], facts: Mapping[str, Any]) -> str:
        """Writes all variables at `step` and returns the path. `facts` (seed, batch size) go into the manifest."""
        path = self._path(step)
        if is_complete(path):
            return path
        if tf.io.gfile.exists(path):
            tf.io.gfile.rmtree(path)
        tf.io.gfile.makedirs(path)
        tf.train.Checkpoint(**{name: dict(group) for name, group in groups.items()}).write(f"{path}/state")
        described = {
            name: {key: [list(v.shape), v.dtype.name] for key, v in group.items()} for name, group in groups.items()
        }
        manifest = {"step": step, "tensorflow": tf.__version__, **facts, "variables": described}
        write_json(f"{path}/{MANIFEST}", manifest)
        self._remove_old()
        return path

    def restore(self, path: str, groups: Mapping[str, Variables]) -> dict[str, Any]:
        """Fills all variables from `path`, all or none missing; returns the manifest.

        Raises:
            CheckpointError: incomplete, corrupt, or of another model.
        """
        manifest = read_manifest(path)
        for name, group in groups.items():
            _check_same(path, name, manifest["variables"].get(name, {}), group)
        _read(path, groups)
        return manifest

    def latest(self) -> str | None:
        """The newest complete checkpoint."""
        steps = self._steps()
        return self._path(steps[-1]) if steps else None

    def best(self) -> str | None:
        """The checkpoint with the best evaluation so far, if any evaluation was recorded."""
        record = self._best_record()
        return f"{self.directory}/{record['checkpoint']}" if record else None

    def offer_best(self, path: str, metric: str, value: float) -> bool:
        """Keeps `path` as the best if its metric is higher than the best one's so far; says whether it is."""
        record = self._best_record()
        if record is not None and record["metric"] == metric and record["value"] >= value:
            return False
        write_json(
            f"{self.directory}/{BEST}", {"checkpoint": path.rpartition("/")[2], "metric": metric, "value": value}
        )
        self._remove_old()
        return True

    def _best_record(self) -> dict[str, Any] | None:
        path = f"{self.directory}/{BEST}"
        if not tf.io.gfile.exists(path):
            return None
        with tf.io.gfile.GFile(path) as file:
            return json.load(file)

    def _path(self, step: int) -> str:
        return f"{self.directory}/step-{step:08d}"

    def _steps(self) -> list[int]:
        if not tf.io.gfile.isdir(self.directory):
            return []
        names = [name.rstrip("/") for name in tf.io.gfile.listdir(self.directory)]
        steps = [int(name[5:]) for name in names if name.startswith("step-") and name[5:].isdigit()]
        return sorted(step for step in steps if is_complete(self._path(step)))

    def _remove_old(self) -> None:
        best = self.best()
        for step in self._steps()[: -self.keep]:
            path = self._path(step)
            if path != best:
                # The manifest goes first: a removal that is killed leaves an unfinished folder, not a damaged one.
                tf.io.gfile.remove(f"{path}/{MANIFEST}")
                tf.io.gfile.rmtree(path)


def is_complete(path: str) -> bool:
    """Whether `path` is a checkpoint that was written to its end."""
    return tf.io.gfile.exists(f"{path}/{MANIFEST}")


def find_checkpoint(path: str) -> str:
    """`path` itself if it is a checkpoint, else the best (or else the newest) one of the run folder `path`.

    Raises:
        CheckpointError: when there is none.
    """
    path = path.rstrip("/")
    if is_complete(path):
        return path
    folder = CheckpointFolder(f"{path}/checkpoints")
    found = folder.best() or folder.latest()
    if found is None:
        state = (
            "is an unfinished checkpoint"
            if tf.io.gfile.exists(f"{path}/state.index")
            else "holds no complete checkpoint"
        )
        raise CheckpointError(
            f"{path}: {state}; expected a run folder with checkpoints/step-*/, or one such step-* folder"
        )
    return found


def read_manifest(path: str) -> dict[str, Any]:
    """The manifest of a checkpoint."""
    try:
        with tf.io.gfile.GFile(f"{path}/{MANIFEST}") as file:
            return json.load(file)
    except (tf.errors.OpError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a complete checkpoint ({MANIFEST}: {_first_line(error)}); use another one"
        ) from None


def load_for_inference(path: str, variables: Variables) -> None:
    """Fills a model's variables from a checkpoint: the moving average where the run kept one, else the weights.

    Args:
        path: one checkpoint's folder.
        variables: all of the model's variables by path.

    Raises:
        CheckpointError: incomplete, corrupt, or of another model.
    """
    group = _inference_group(read_manifest(path))
    _check_same(path, group, read_manifest(path)["variables"][group], variables)
    _read(path, {group: variables})


def load_matching(path: str, variables: Variables, prefer_moving_average: bool) -> tuple[list[str], list[str]]:
    """For fine-tuning: loads what agrees in name and shape; returns (loaded, not loaded with the reason).

    Raises:
        CheckpointError: incomplete or corrupt, or nothing agrees at all.
    """
    manifest = read_manifest(path)
    group = _inference_group(manifest) if prefer_moving_average else "weights"
    there = manifest["variables"][group]
    loaded = {
        name: variable for name, variable in variables.items() if there.get(name, [None])[0] == list(variable.shape)
    }
    skipped = [
        f"{name}: here {list(variable.shape)}, {f'there {there[name][0]}' if name in there else 'not there'}"
        for name, variable in variables.items()
        if name not in loaded
    ]
    if not loaded:
        raise CheckpointError(
            f"{path}: no variable agrees in name and shape with this model; is it of another architecture?"
        )
    _read(path, {group: loaded})
    return sorted(loaded), skipped


def _inference_group(manifest: dict[str, Any]) -> str:
    return "average" if manifest["variables"].get("average") else "weights"


def _read(path: str, groups: Mapping[str, Variables]) -> None:
    checkpoint = tf.train.Checkpoint(**{name: dict(group) for name, group in groups.items()})
    try:
        checkpoint.read(f"{path}/state").assert_existing_objects_matched().expect_partial()
    except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{path}: damaged or incomplete data ({_first_line(error)}); "
            "delete this folder to go on from the checkpoint before it"
        ) from None


def _check_same(path: str, group: str, there: Mapping[str, Any], here: Variables) -> None:
    missing = sorted(set(here) - set(there))
    surplus = sorted(set(there) - set(here))
    shapes = [
        f"{k}: here {list(here[k].shape)}, there {there[k][0]}"
        for k in here
        if k in there and list(here[k].shape) != there[k][0]
    ]
    if missing or surplus or shapes:
        lists = {"only in this model": missing, "only in the checkpoint": surplus, "other shape": shapes}
        detail = "; ".join(
            f"{what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}" for what, names in lists.items() if names
        )
        raise CheckpointError(
            f"{path}: made by another model ({group}: {detail}). Use the configuration it was made with, "
            "another --model_dir, or trainer.initialise to start from those of its weights that agree."
        )


def write_json(path: str, content: Mapping[str, Any]) -> None:
    """Writes JSON atomically: the old file or the new one, never half of it."""
    with tf.io.gfile.GFile(f"{path}.tmp", "w") as file:
        json.dump(content, file, indent=1)
    tf.io.gfile.rename(f"{path}.tmp", path, overwrite=True)


def _first_line(error: Exception) -> str:
    return str(getattr(error, "message", error)).strip().split("\n")[0][:200]
