"""The former names of commands: they say the new one and run it. They go with the next release."""

import runpy
import sys


def run(former: str, name: str) -> None:
    """Runs `python -m name` with this process's arguments."""
    print(f"python -m {former} is called python -m {name} now", file=sys.stderr)
    runpy.run_module(name, run_name="__main__", alter_sys=True)
