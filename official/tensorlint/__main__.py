"""The former name of `python -m tools.tensorlint`."""

from tools.former import run

run("official.tensorlint", "tools.tensorlint")
