"""The detector families. `TASKS` is the one table that maps the configuration's `task.type` to its class."""

from configs.experiment import Experiment
from tasks.centernet.task import CenterNet
from tasks.detection import DetectionTask
from tasks.yolo import darknet_files as darknet_files
from tasks.yolo.task import Yolo

TASKS = {"yolo": Yolo, "centernet": CenterNet}


def build_task(experiment: Experiment) -> DetectionTask:
    """The detector family that `task.type` names."""
    return TASKS[experiment.task.type](experiment.task, experiment.runtime.seed, experiment.trainer.duration)
