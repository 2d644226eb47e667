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
    run_inference,
    run_loss,
    run_steps,
    run_updates,
)

SUITE = (
    *geometry_and_colour.BUGS,
    *layers.BUGS,
    *loss_and_assignment.BUGS,
    *data_and_training.BUGS,
    *evaluation.BUGS,
    *centernet.BUGS,
)

# Mistakes in the code that a training run executes: the experiment's own objects are asked, and no recording.
RUN = (*run_inference.BUGS, *run_loss.BUGS, *run_updates.BUGS, *run_steps.BUGS)

# Entries that no gate up to 9 can see, and why.
NOT_PLANTED = {
    27: "a run that goes on from a checkpoint: tests/official compares it, bit for bit, with one that never stopped",
    33: "an export in int8: tests/serving scores it beside the network that was exported",
}
