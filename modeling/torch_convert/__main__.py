"""The former name of `python -m tools.convert`."""

from tools.former import run

run("modeling.torch_convert", "tools.convert")
