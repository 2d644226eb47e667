"""From the recipe of a configuration to its geometry, and to the images that each position of the stream uses."""

import tensorflow as tf

from configs.data import AffineAugmentation, DarknetAugmentation, TrainSplit
from dataloaders.compose.affine import AffineGeometry
from dataloaders.compose.darknet import DarknetGeometry
from dataloaders.compose.geometry import Geometry
from dataloaders.schedule.images import ImageSchedule, schedule_of
from official.vision.protocol import EvaluationProtocol

# With any other recipe, or none, every example of the schedule is one whole image.
GEOMETRIES: dict[type, type[Geometry]] = {
    DarknetAugmentation: DarknetGeometry,
    AffineAugmentation: AffineGeometry,
}


def geometry_of(split: TrainSplit, input_size: tuple[int, int], protocol: EvaluationProtocol) -> Geometry | None:
    """The geometry of the split's recipe; none where every example is one whole image."""
    kind = GEOMETRIES.get(type(split.augmentation))
    geometry = kind and kind(split.augmentation, input_size, protocol)
    return geometry if geometry and geometry.composes else None


def schedule_of_split(split: TrainSplit) -> ImageSchedule:
    """The schedule of the split: which images each position of its stream uses.

    Raises:
        UserError: the recipe has a makeup that would never occur, or a window whose images cannot be used alike.
    """
    geometry = geometry_of(split, (1, 1), EvaluationProtocol())
    if geometry is None:
        return ImageSchedule(((1,),), (1,))
    window = split.augmentation.window
    return schedule_of(geometry.shares(), *((window.reuse, window.examples) if window else ()))


def rows_of_steps(split: TrainSplit, images: int, seed: int, first_step: int, last_step: int) -> list[int]:
    """The data set's rows that training steps first_step to last_step - 1 read, in order, each once.

    With a window they read all of the blocks that they are in.
    """
    schedule, rows = schedule_of_split(split), []
    start, stop = first_step * split.batch_size, last_step * split.batch_size
    if schedule.reuse > 1:
        start, stop = start // schedule.examples * schedule.examples, -(-stop // schedule.examples) * schedule.examples
    for number in range(start, stop):
        plan = schedule.plan(tf.constant(number, tf.int64), images, seed)
        rows += plan.rows[: int(plan.count)].numpy().tolist()
    return list(dict.fromkeys(rows))
