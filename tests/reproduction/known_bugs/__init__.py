"""Bugs that ports of these detectors had (docs/known-port-bugs.md), planted into our own code; the gates have to tell.

Each is a patch of our implementation, never a flag in it. `python -m tests.reproduction.known_bugs` prints the table.
"""

from tests.reproduction.known_bugs import (
    centernet,
    data_and_training,
    evaluation,
    geometry_and_colour,
    layers,
    loss_and_assignment,
)

SUITE = (
    *geometry_and_colour.BUGS,
    *layers.BUGS,
    *loss_and_assignment.BUGS,
    *data_and_training.BUGS,
    *evaluation.BUGS,
    *centernet.BUGS,
)
