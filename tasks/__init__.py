"""The detector families. `TASKS` is the one table that maps the configuration's `task.type` to its class."""

from tasks.centernet import CenterNet
from tasks.yolo import Yolo

TASKS = {"yolo": Yolo, "centernet": CenterNet}
