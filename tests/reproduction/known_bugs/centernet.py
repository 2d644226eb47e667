"""The documented bugs where CenterNet has them: entries 1, 2, 10, 20, 21 and 22."""

from pathlib import Path

import tensorflow as tf
from pytest import MonkeyPatch

from configs.experiment import Experiment
from losses.centernet import loss
from losses.centernet import targets as centernet_targets
from modeling.centernet import decode, inference
from modeling.layers import blocks
from official.core.config_io import load_config
from reproduction.centernet import targets as golden_targets
from reproduction.experiment.subject import Subject
from reproduction.originals import with_original
from tests.reproduction.known_bugs.bug import Bug

EXPERIMENTS = Path(__file__).parents[3] / "configs" / "experiments"
RES18 = (
    "task.model.decoder={type: deconv, filters: [256, 256, 256], deformable: false}",
    "reproduces.original=ctdet --arch res_18 --batch_size 114 --lr 5e-4",
)
BEFORE = ("decode_small_k40", "gaussian/draw0", "targets_small_val/s0", "loss_small_default")


def res18(shared: Path) -> Subject:
    """ResNet-18 without deformable convolutions, beside the traces of it."""
    experiment = load_config(str(EXPERIMENTS / "centernet_resdcn18_coco.yaml"), Experiment, RES18)
    return with_original(Subject(experiment, (shared / "golden_centernet",)))


def _momentum(patch: MonkeyPatch) -> None:
    made = blocks.BatchNorm
    patch.setattr(blocks, "BatchNorm", lambda momentum, **options: made(1 - momentum, **options))


def _peaks_by_rows(patch: MonkeyPatch) -> None:
    """A cell's number is divided by the rows instead of the columns."""
    right = decode.sides_of

    patch.setattr(decode, "sides_of", lambda tensor: right(tensor)[::-1])


def _cells_by_rows(patch: MonkeyPatch) -> None:
    right = golden_targets.assign

    def assign(objects, grid, classes):
        found = right(objects, grid, classes)
        return found._replace(ind=objects.ct_int[..., 0] * grid[0] + objects.ct_int[..., 1])

    patch.setattr(golden_targets, "assign", assign)


def _with(**changes):
    """`place`, with fields of the objects changed by functions of (objects, truth)."""

    def plant(patch: MonkeyPatch) -> None:
        right = golden_targets.place

        def place(truth, grid, classes):
            objects = right(truth, grid, classes)
            return objects._replace(**{name: change(objects, truth) for name, change in changes.items()})

        patch.setattr(golden_targets, "place", place)

    return plant


def _cropped_kept(patch: MonkeyPatch) -> None:
    """A box of which nothing is left on the map still makes a positive at the border."""
    right = golden_targets.place

    def place(truth, grid, classes):
        objects = right(truth, grid, classes)
        rows, columns = grid
        boxes = tf.clip_by_value(truth.boxes, 0.0, tf.constant([columns - 1, rows - 1] * 2, tf.float32))
        centre = (boxes[..., :2] + boxes[..., 2:]) / 2
        lost = truth.valid & ~objects.mask
        cells = tf.where(lost[..., tf.newaxis], tf.cast(centre, tf.int32), objects.ct_int)
        offset = tf.where(lost[..., tf.newaxis], centre - tf.floor(centre), objects.reg)
        of_class = tf.where(lost, truth.classes, objects.classes)
        return objects._replace(ct_int=cells, reg=offset, classes=of_class, mask=truth.valid)

    patch.setattr(golden_targets, "place", place)


def _right_radius(patch: MonkeyPatch) -> None:
    """The least of the corrected roots, as most ports have it."""
    from reproduction.centernet.mistakes import right_radius

    def radius(height, width):
        sizes = tf.reshape(tf.stack([height, width], axis=-1), [-1, 2]).numpy()
        found = [max(0, int(right_radius(*map(float, size)))) if min(size) > 0 else 0 for size in sizes]
        return tf.reshape(tf.constant(found, tf.int32), tf.shape(height))

    for module in (centernet_targets, golden_targets):
        patch.setattr(module, "gaussian_radius", radius)


def _objects_for_cells(patch: MonkeyPatch) -> None:
    """The focal loss is divided by the number of objects; several may share a cell."""
    right = loss._losses

    def losses(stack, targets, *rest):
        parts = right(stack, targets, *rest)
        cells = tf.reduce_sum(tf.cast(targets.hm == 1, tf.float32))
        objects = tf.reduce_sum(tf.cast(targets.reg_mask, tf.float32))
        return parts | {"hm_loss": parts["hm_loss"] * tf.maximum(cells, 1.0) / tf.maximum(objects, 1.0)}

    patch.setattr(loss, "_losses", losses)


def _by_objects(patch: MonkeyPatch) -> None:
    """L1 is divided by objects instead of numbers."""
    right = loss.l1
    patch.setitem(loss.REGRESSION, "l1", lambda *args: 2 * right(*args))


def _rgb(patch: MonkeyPatch) -> None:
    right = inference.standardise
    patch.setattr(inference, "standardise", lambda pixels, config: right(pixels, config)[..., ::-1])


_SMALL = ("targets_small_val/s*",)
_IMAGES = ("augment_units/preprocess0", "augment_units/color0", "augment_units/affine", "augment_units/warp0")

BUGS = (
    Bug("CenterNet: batch-norm's momentum 0.1 meant as PyTorch's", (10,), _momentum, 2, ("res18*",),
        "res18_trace: f??/after_train_forward/*", "batch_norm_momentum", res18, ("nothing",)),
    Bug("CenterNet: peaks by rows and columns exchanged", (1,), _peaks_by_rows, 3, ("decode_small_k40",),
        "decode_small_k40: topk/x", "height_width_swapped", res18, ("nothing",)),
    Bug("CenterNet: targets' cells by rows and columns exchanged", (1,), _cells_by_rows, 5, _SMALL,
        "targets_small_val/s0: s0/ind", "height_width_swapped", res18, BEFORE),
    Bug("CenterNet: padded rows are objects in the first cell", (20,), _with(
        mask=lambda objects, truth: objects.mask | ~truth.valid), 5, _SMALL,
        "targets_small_val/s0: s0/hm", "padded_rows_scatter", res18, BEFORE),
    Bug("CenterNet: cropped boxes are positives", (21,), _cropped_kept, 5, _SMALL,
        "targets_small_val/s?: s?/hm", "cropped_boxes_counted", res18, BEFORE),
    Bug("CenterNet: the radius by corrected roots", (21,), _right_radius, 5, ("gaussian/*", *_SMALL),
        "gaussian/radius: radius/int_overlap0.7", "gaussian_radius", res18, BEFORE[:1]),
    Bug("CenterNet: focal loss divided by objects", (22,), _objects_for_cells, 6, ("loss_small_default",),
        "loss_small_default: f32/hm_loss", "focal_loss_positives", res18, BEFORE),
    Bug("CenterNet: sizes' loss divided by objects", (22,), _by_objects, 6, ("loss_small_default",),
        "loss_small_default: f32/wh_loss", "loss_scale", res18, BEFORE),
    Bug("CenterNet: RGB instead of BGR", (2,), _rgb, 8, _IMAGES,
        "augment_units/preprocess0: preprocess0/images", "channels_reversed", res18, BEFORE),
)  # fmt: skip
