"""Runs a command several times in one process of its own: TensorFlow starts once. What it cannot show, such as
messages of TensorFlow's start, is tested by `tests.test_doors.run`."""

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Done(NamedTuple):
    """How one run of a command ended."""

    returncode: int
    stdout: str
    stderr: str


def run_each(door: str, *argument_lists: tuple[str, ...]) -> list[Done]:
    """`door`: such as "train.py", in the repository's root; each run has its own flags."""
    command = [sys.executable, "-m", "tests.doors", door.removesuffix(".py"), json.dumps(argument_lists)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [Done(*one) for one in json.loads(done.stdout.splitlines()[-1])]


def _run(main, arguments: list[str]) -> Done:
    from absl import flags

    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            flags.FLAGS.unparse_flags()
            for name in flags.FLAGS:
                flags.FLAGS[name].unparse()
            main(flags.FLAGS(["door", *arguments]))
        except flags.Error as error:
            print(f"FATAL Flags parsing error: {error}", file=sys.stderr)
            code = 1
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
            print(end.code if isinstance(end.code, str) else "", file=sys.stderr)
        except BaseException:
            traceback.print_exc()
            code = 1
    return Done(code, out.getvalue(), err.getvalue())


if __name__ == "__main__":
    os.chdir(ROOT)
    module = importlib.import_module(sys.argv[1])
    print(json.dumps([_run(module.main, arguments) for arguments in json.loads(sys.argv[2])]))
