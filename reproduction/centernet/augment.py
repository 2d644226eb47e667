"""CenterNet's augmentation and test-time preprocessing for recorded draws (`augment_units`, `augment_train_*`)."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from configs.centernet.task import CenterNetModel, CenterNetProtocol
from dataloaders.centernet.augment import CenterNetDraws, MapDraws, affine_map, apply_affine, mirror, recolour
from modeling.centernet import inference
from official.vision.interpolation import opencv
from official.vision.resize import fitting_map, resize_image
from official.vision.warp import Map, warp_opencv
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.compare import Absolute, Exact, OfAbsmax
from reproduction.traces.trace import TraceError, relayout

MATRIX = OfAbsmax(bound=1e-6)  # a recorded one is solved for from points in float32
COLOUR = Absolute(bound=1e-6)
STANDARDISED = Absolute(bound=1e-5)  # of pixels that are whole levels before
MODEL = CenterNetModel.model_construct()  # of which the mean and deviation are used, the original's by default


def units(case: Case) -> Iterator[Row]:
    """`affine`: matrices; `warp0`, ...: images under one; `color0`, ...: colours; `preprocess0`, ...: test images."""
    kinds = {"affine": _matrices, "warp": _warp, "color": _colours, "preprocess": _preprocess}
    kind = case.part.rstrip("0123456789")
    if kind not in kinds or (case.part == kind) != (kind == "affine"):
        raise TraceError(f"{case.path}: {case.part!r} is neither affine nor warp, color or preprocess with a number")
    yield from kinds[kind](case)


def unit_parts(case: Case) -> list[str]:
    """All first names but `color`, which holds constants."""
    return sorted({name.split("/")[0] for name in case.trace if "/" in name} - {"color"})


def train_inputs(case: Case) -> Iterator[Row]:
    """The whole augmentation of one training image: mapped, mirrored, coloured, standardised."""
    trace, prefix = case.trace, case.part
    if f"{prefix}/image_bgr_u8" not in trace:
        yield case.skip(f"{prefix}/input", "its image was not recorded")
        return
    flip = bool(trace.number(f"{prefix}/flipped"))
    affine = MapDraws(
        tf.constant(flip),
        tf.constant(trace.array(f"{prefix}/c", (2,), np.floating), tf.float32),
        tf.constant(trace.number(f"{prefix}/s"), tf.float64),
    )
    uniform, normal = (np.ravel(trace.array(f"{prefix}/draw_{name}")) for name in ("uniform", "normal"))
    order = np.ravel(trace.array(f"{prefix}/draw_shuffle"))
    draws = _draws(order, uniform[-3:], normal[-3:], flip)
    expected = trace.array(f"{prefix}/input", (3, "rows", "columns"), np.floating)
    image = trace.array(f"{prefix}/image_bgr_u8", ("height", "width", 3), np.uint8)
    warped = mirror(apply_affine(tf.constant(image), affine, expected.shape[1:], "opencv")[tf.newaxis], draws.flip)
    ours = inference.standardise(recolour(tf.cast(warped, tf.float32) / 255, draws), MODEL)[0].numpy()
    yield case.compare(f"{prefix}/input", relayout(ours, "HWC", "CHW"), STANDARDISED, clue=Clue("image", "CHW"))


def _draws(order: np.ndarray, uniform: np.ndarray, normal: np.ndarray, flip: bool = False) -> CenterNetDraws:
    return CenterNetDraws(
        tf.constant([flip]),
        tf.constant(order[np.newaxis], tf.int32),
        tf.constant(1 + uniform[np.newaxis], tf.float32),
        tf.constant(normal[np.newaxis], tf.float32),
    )


def _matrices(case: Case) -> Iterator[Row]:
    """Maps without rotation: ours has no other."""
    names = ("center", "scale", "output_wh", "rot_deg", "trans")
    centres, scales, sizes, turns, expected = (case.trace.array(f"affine/{name}", dtype=np.number) for name in names)
    upright = np.flatnonzero(turns == 0)
    ours = np.zeros((len(upright), 2, 3))
    for matrix, number in zip(ours, upright, strict=True):
        scale = tf.constant(scales[number][0], tf.float64)  # the original uses no more
        draws = MapDraws(tf.constant(False), tf.constant(centres[number], tf.float32), scale)
        where = affine_map(draws, tuple(sizes[number][::-1].tolist()))
        matrix[[1, 0], [1, 0]], matrix[::-1, 2] = where.scale, where.offset
    yield case.compare("affine/trans (rot_deg 0)", ours, MATRIX, expected[upright])


def _warp(case: Case) -> Iterator[Row]:
    matrix = case.trace.array(f"{case.part}/trans", (2, 3), np.floating)
    where = Map(tf.constant(matrix.diagonal()[::-1].copy()), tf.constant(matrix[::-1, 2].copy()))
    expected = case.trace.array(f"{case.part}/out_u8", ("rows", "columns", 3), np.uint8)
    image = case.trace.array(f"{case.part}/image_u8", ("height", "width", 3), np.uint8)
    yield case.compare(f"{case.part}/out_u8", warp_opencv(tf.constant(image), where, expected.shape[:2]), Exact())


def _colours(case: Case) -> Iterator[Row]:
    recorded = {
        name: case.trace.array(f"{case.part}/{name}", (3,))
        for name in ("order_0bright_1contrast_2satur", "uniform_draws_in_order", "lighting_normal")
    }
    image = case.trace.array(f"{case.part}/image", ("height", "width", 3), np.float32)
    ours = recolour(tf.constant(image[np.newaxis]), _draws(*recorded.values()))[0]
    yield case.compare(f"{case.part}/out", ours, COLOUR)


def _preprocess(case: Case) -> Iterator[Row]:
    """One test image at one scale: resized, then in the middle of an input of its own size or of a fixed one."""
    trace, options = case.trace, case.trace.text(f"{case.part}/options")
    image = tf.constant(trace.array(f"{case.part}/image_u8", ("height", "width", 3), np.uint8))
    expected = trace.array(f"{case.part}/images", ("batch", 3, "rows", "columns"), np.floating)
    scale, across = trace.number(f"{case.part}/scale"), tf.reduce_max(tf.shape(image)[:2])
    size = tuple(expected.shape[2:])
    if scale != 1:
        image = opencv(image, tf.cast(tf.cast(tf.shape(image)[:2], tf.float64) * scale, tf.int32))
    if "--keep_res" in options:
        multiple = int(options.split(" pad ")[1].split()[0]) + 1
        pixels = resize_image(image, size, CenterNetProtocol(resize="keep", keep_multiple=multiple))
    else:
        pixels = warp_opencv(image, fitting_map(tf.shape(image)[:2], across, size), size)
    ours = inference.standardise(tf.cast(pixels, tf.float32)[tf.newaxis] / 255, MODEL)[0].numpy()
    both = [ours, ours[:, ::-1]][: len(expected)]  # with the flip test
    ours = relayout(np.stack(both), "NHWC", "NCHW")
    yield case.compare(f"{case.part}/images", ours, STANDARDISED, clue=Clue("image", "NCHW"))
