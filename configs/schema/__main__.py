"""The former name of `python -m tools.schema`."""

from tools.former import run

run("configs.schema", "tools.schema")
