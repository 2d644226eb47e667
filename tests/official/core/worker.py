"""One worker of a toy run, for the tests.

python -m tests.official.core.worker DIRECTORY TRAINER_JSON [SECONDS [BROKEN]]
"""

import json
import sys
import time

import tensorflow as tf

from official.core.cluster import saying_that_a_worker_is_lost
from official.core.config import Runtime
from official.core.distribution import place
from official.core.errors import one_line_errors
from official.core.evaluation import Evaluation
from official.core.trainer import Run
from tests.official.core.toy_task import ToyTask, toy_trainer


@one_line_errors
def main() -> None:
    directory, trainer, pause, broken = (*sys.argv[1:], "0", "-1")[:4]
    placement = place(Runtime(device="cpu", wait_for_workers=60))
    tf.config.experimental.enable_op_determinism()
    with saying_that_a_worker_is_lost(placement.cluster, "Start it again"):
        run = Run(ToyTask(broken=int(broken)), toy_trainer(**json.loads(trainer)), Runtime(), placement, directory)
        evaluation = Evaluation(ToyTask(), directory, placement.own_strategy) if placement.is_chief else None
        print(f"{placement}; {run.resume_or_initialise()}", flush=True)
        run.train(evaluation, lambda *_: time.sleep(float(pause)))
        run.wait_for_workers()


if __name__ == "__main__":
    main()
