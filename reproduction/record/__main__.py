"""The former name of `python -m tools.record`."""

from tools.former import run

run("reproduction.record", "tools.record")
