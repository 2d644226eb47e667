"""The former names of commands: they say the new one and run it. They go with the next release."""

import runpy
import sys
from collections.abc import Sequence


def run(former: str, name: str, arguments: Sequence[str] | None = None) -> None:
    """Runs `python -m name` with `arguments`, or else with this process's own."""
    print(f"python -m {former} is called python -m {name} now", file=sys.stderr)
    if arguments is not None:
        sys.argv[1:] = arguments
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def partial(arguments: Sequence[str]) -> list[str]:
    """What `modeling.darknet.weights partial CFG FILE OUT N` was given, as `tools.convert` takes it."""
    if len(arguments) != 5 or arguments[0] != "partial":
        return list(arguments)
    cfg, source, target, layers = arguments[1:]
    return ["--cfg", cfg, "--from", source, "--to", target, "--partial", layers]
