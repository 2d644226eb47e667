"""The former name of `python -m tools.replay`."""

from tools.former import run

run("dataloaders.replay", "tools.replay")
