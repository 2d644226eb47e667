"""Where a proof was made and what it was made from."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from official.core.config_io import dump_config
from official.core.errors import UserError
from reproduction.experiment.subject import Subject, sha256
from reproduction.traces.trace import read_trace

_PACKAGES = ("keras", "numpy", "pycocotools")


def environment() -> Mapping[str, str]:
    """Machine and versions."""
    devices = ", ".join(device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices())
    versions = {name: _version(name) for name in _PACKAGES}
    return {
        "python": platform.python_version(), "tensorflow": tf.__version__, **versions, "devices": devices,
        "cores": str(os.cpu_count()), "machine": f"{platform.system()} {platform.machine()}", "code": _commit(),
    }  # fmt: skip


def provenance(subject: Subject) -> Mapping[str, str]:
    """The experiment's hash, the weights' SHA-256, and which program recorded each folder of traces."""
    found = {}
    if subject.experiment is not None:
        found["configuration (SHA-256)"] = hashlib.sha256(dump_config(subject.experiment).encode()).hexdigest()
        found |= {"paper": subject.claims.paper, "original's code": subject.claims.code}
        if subject.claims.original:
            found["original's recipe"] = str(subject.find(subject.claims.original) or subject.claims.original)
    if subject.weights is not None:
        found["original's weights"] = f"{subject.weights.name}, SHA-256 {sha256(subject.weights)}"
    for root in subject.traces:
        found[f"traces {root}"] = _sources(root)
    return {key: value for key, value in found.items() if value}


def _sources(root: Path) -> str:
    """Who recorded them, by their manifests; how many have none."""
    paths = sorted(root.rglob("*.npz"))
    sources = set()
    for path in paths:
        if path.with_suffix(".json").is_file():
            try:
                source = read_trace(path).source
            except (UserError, OSError):
                continue
            sources.add(" ".join(part for part in (source.program, source.repository, source.commit) if part))
    named = "; ".join(sorted(sources - {""})) or "no manifest says by whom"
    return f"{len(paths)} files; {named}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """Of the repository that runs, and whether it has changes; empty outside of one."""
    here = Path(__file__).resolve().parents[2]
    try:
        commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
        done = [
            subprocess.run(one, cwd=here, capture_output=True, text=True, timeout=10, check=True) for one in commands
        ]
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    commit, changes = (one.stdout.strip() for one in done)
    return f"{commit}{' with changes' if changes else ''}"
