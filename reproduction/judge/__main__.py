"""The former name of `python -m tools.judge`."""

from tools.former import run

run("reproduction.judge", "tools.judge")
