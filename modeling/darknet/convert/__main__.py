"""The former name of `python -m tools.convert`."""

from tools.former import run

run("modeling.darknet.convert", "tools.convert")
