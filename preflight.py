"""What must hold before TensorFlow is imported: it is there, `official` is ours, and it does not chatter."""

import importlib.util
import os
import sys
from pathlib import Path


def check() -> None:
    """Ends the program with one line that says what to do, if it could not run anyway."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings about its own build are nothing a user can act on
    here = Path(__file__).resolve().parent
    if importlib.util.find_spec("tensorflow") is None:
        sys.exit(
            "TensorFlow is not installed: run `pip install -e .[cpu]` (or .[gpu], .[tpu]) in a virtual environment."
        )
    official = importlib.util.find_spec("official")
    origin = Path(official.origin).resolve().parent if official and official.origin else None
    if origin != here / "official":
        sys.exit(
            f"The package `official` comes from {origin}, not from {here}: another distribution owns the name "
            "(tf-models-official?). Run `pip uninstall tf-models-official`, or use a fresh virtual environment."
        )
