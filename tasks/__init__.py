"""The detector families. `TASKS` is the one table that maps the configuration's `task.type` to its class."""

from tasks.centernet.task import CenterNet
from tasks.yolo.task import Yolo

TASKS = {"yolo": Yolo, "centernet": CenterNet}
