"""What must hold before a command starts: TensorFlow is there, `official` is ours, and it starts in silence."""

import importlib.util
import os
import sys
import tempfile
from pathlib import Path


def check() -> None:
    """Ends the program with one line that says what to do, if it could not run anyway."""
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
    _import_tensorflow_quietly()


def _import_tensorflow_quietly() -> None:
    """TensorFlow writes about its own build while it is imported, whatever its log level: nothing a user can act on."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            importlib.import_module("official")  # which says how TensorFlow starts
            importlib.import_module("keras")  # which imports TensorFlow
        except BaseException:
            said.seek(0)
            os.write(shown, said.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)
