"""The former name of `python -m tools.doctor`."""

from tools.former import run

run("dataloaders.doctor", "tools.doctor")
