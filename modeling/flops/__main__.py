"""The former name of `python -m tools.flops`."""

from tools.former import run

run("modeling.flops", "tools.flops")
