"""The former name of `python -m tools.demo_data`."""

from tools.former import run

run("dataloaders.synthetic", "tools.demo_data")
