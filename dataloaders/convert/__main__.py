"""The former name of `python -m tools.shards`."""

from tools.former import run

run("dataloaders.convert", "tools.shards")
