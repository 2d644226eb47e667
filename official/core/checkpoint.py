"""Checkpoints of a run: a folder each, complete only when its manifest is there; the newest N and the best are kept.

A write that is killed leaves a folder without a manifest, which is ignored and removed later. The manifest is written
last, so this holds on any file system, object stores included, where a rename is not atomic.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from official.core.errors import UserError, first_line

MANIFEST = "manifest.json"
SCORES = "scores.json"  # which checkpoint is the best, and which was scored last
MODEL_GROUPS = ("progress", "weights", "average")  # the other groups are the optimiser's slots
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
        path = self.path(step)
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
        self.remove_old()
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
        complete = self.complete()
        return complete[-1] if complete else None

    def best(self) -> str | None:
        """The checkpoint with the highest score, if it is still there."""
        best = self._record()["best"]
        path = f"{self.directory}/{best['checkpoint']}" if best else ""
        return path if best and is_complete(path) else None

    def record_score(self, path: str, metric: str, value: float) -> None:
        """Notes that `path` was scored; the highest score of the run's metric so far makes it the best."""
        record, name = self._record(), path.rpartition("/")[2]
        best = record["best"]
        if self.best() is None or best["metric"] != metric or value > best["value"]:
            best = {"checkpoint": name, "metric": metric, "value": value}
        write_json(f"{self.directory}/{SCORES}", {"best": best, "last_scored": name})

    def is_scored(self, path: str) -> bool:
        """Whether `path` is the checkpoint that was scored last."""
        return self._record()["last_scored"] == path.rpartition("/")[2]

    def complete(self) -> list[str]:
        """All complete checkpoints, oldest first."""
        return [path for path in self._folders() if is_complete(path)]

    def remove_old(self) -> None:
        """Removes all but the newest and the best, and what killed writes left. Only the training job calls it."""
        complete = self.complete()
        kept = {*complete[-self.keep :], self.best()}
        for path in self._folders():
            if path in kept or (complete and path > complete[-1]):
                continue
            if is_complete(path):
                # The manifest goes first: a removal that is killed leaves an unfinished folder, not a damaged one.
                tf.io.gfile.remove(f"{path}/{MANIFEST}")
            tf.io.gfile.rmtree(path)

    def _record(self) -> dict[str, Any]:
        nothing = {"best": None, "last_scored": None}
        return read_json_if_there(f"{self.directory}/{SCORES}", nothing, "delete it to score anew")

    def path(self, step: int) -> str:
        """Where the checkpoint of that step is or will be."""
        return f"{self.directory}/step-{step:08d}"

    def _folders(self) -> list[str]:
        if not tf.io.gfile.isdir(self.directory):
            return []
        names = sorted(name.rstrip("/") for name in tf.io.gfile.listdir(self.directory))
        return [f"{self.directory}/{name}" for name in names if name.startswith("step-") and name[5:].isdigit()]


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
            manifest = json.load(file)
    except (tf.errors.OpError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a complete checkpoint ({MANIFEST}: {first_line(error)}); use another"
        ) from None
    if not isinstance(manifest, dict) or not {"step", "variables"} <= manifest.keys():
        raise CheckpointError(f"{path}/{MANIFEST}: not written by this program; expected keys step and variables")
    return manifest


def load_for_inference(path: str, variables: Variables) -> dict[str, Any]:
    """Fills a model's variables from a checkpoint and returns its manifest.

    The moving average is taken where the run kept one, else the weights.

    Args:
        path: one checkpoint's folder.
        variables: all of the model's variables by path.

    Raises:
        CheckpointError: incomplete, corrupt, or of another model.
    """
    manifest = read_manifest(path)
    group = _inference_group(manifest)
    _check_same(path, group, manifest["variables"][group], variables)
    _read(path, {group: variables})
    return manifest


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
            f"{path}: damaged or incomplete data ({first_line(error)}); "
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
            f"{path}: made by another {'model' if group in MODEL_GROUPS else 'optimiser'} ({group}: {detail}). "
            "Use the configuration it was made with, another --model_dir, or trainer.initialise to start from those of "
            "its weights that agree."
        )


def read_json_if_there(path: str, otherwise: dict[str, Any], remedy: str) -> dict[str, Any]:
    """A file of `write_json`, or what stands for it where there is none.

    Raises:
        CheckpointError: it is not JSON; the message ends with the remedy.
    """
    if not tf.io.gfile.exists(path):
        return otherwise
    with tf.io.gfile.GFile(path) as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise CheckpointError(f"{path}: not valid JSON ({first_line(error)}); {remedy}") from None


def write_json(path: str, content: Mapping[str, Any]) -> None:
    """Writes JSON atomically."""
    write_text(path, json.dumps(content, indent=1))


def write_text(path: str, text: str) -> None:
    """Writes a file atomically: the old one or the new one, never half of it."""
    with tf.io.gfile.GFile(f"{path}.tmp", "w") as file:
        file.write(text)
    tf.io.gfile.rename(f"{path}.tmp", path, overwrite=True)
