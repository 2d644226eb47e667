"""Gates 2 and 3: what is evaluated and exported, beside the network that is trained and the stated formulas."""

import functools
import gc
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float, Float32, Float64, UInt8

from dataloaders.batch import EvalBatch
from modeling.layers.batch_norm import EPSILON
from official.vision.nms import Detections
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import normalise, resize_image
from reproduction.experiment.own import Own
from reproduction.experiment.subject import Subject
from reproduction.restated import nms, placement
from reproduction.seeded.family import Family, Outputs
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.causes.overlaps import protocol_mistakes
from reproduction.traces.compare import AbsoluteAndRelative, Numbers, OfAbsmax, SameSet, judge, measure, measure_rows
from reproduction.traces.precision import graphs_as_written, precision
from serving.formats.saved_model import export_saved_model

FOLDED = OfAbsmax(bound=1e-4)  # folding rounds every weight
KEPT = SameSet(bound=1e-4)
# The same numbers by another program. Its convolutions add up otherwise with other instructions: where a corner of a
# large box is near 0, 7.5e-6 with AVX2, and 2e-5 where pixels have a noise of 1e-6.
SAME = AbsoluteAndRelative(absolute=1e-4, relative=1e-4)
CLUE = "yxyx class score"
SIZES = ((150, 121), (64, 230))  # (height, width) of the seeded images
ROUNDING = 1e-7  # of the largest number: a decision (a peak, a rank, NMS) that so little noise turns is open
NOISES = 2  # drawn for that
TRIES = 8
OPEN = f"each of {TRIES} seeds has a decision that rounding may turn"
# What the fold may have taken for the moving statistics (variance 0.6..1.4), as functions of (name, the statistic).
STATISTICS: Mapping[str, Callable[[str, np.ndarray], np.ndarray]] = {
    "batch_norm_epsilon 1e-3": lambda name, one: one + 1e-3 - EPSILON if name == "moving_variance" else one,
    "batch_norm_epsilon 1e-4": lambda name, one: one + 1e-4 - EPSILON if name == "moving_variance" else one,
    "batch_norm_epsilon_outside": lambda name, one: (
        np.square(np.sqrt(one) + EPSILON) - EPSILON if name == "moving_variance" else one
    ),
    "fold_statistics no root": lambda name, one: np.square(one) if name == "moving_variance" else one,
    "fold_statistics root twice": lambda name, one: np.sqrt(one) if name == "moving_variance" else one,
    "fold_statistics variance 1": lambda name, one: np.ones_like(one) if name == "moving_variance" else one,
    "fold_statistics mean 0": lambda name, one: np.zeros_like(one) if name == "moving_mean" else one,
    "fold_statistics as at the start": lambda name, one: np.full_like(one, name == "moving_variance"),
}
Pixels = Float[np.ndarray, "height width 3"] | UInt8[np.ndarray, "height width 3"]  # levels 0..255
Kept = Float64[np.ndarray, "kept 6"]  # box yxyx relative to the image, class, score


def inference_network(case: Case, subject: Subject) -> Iterator[Row]:
    """Outputs of the network for inference, batch-norm folded, beside those of the trained one in evaluation mode.

    The trained one is of float64, and so decides where the rounding of float32 comes near the bound.
    """
    own = subject.own.small
    trained, family = _trained(own, "float64"), own.family
    images = np.random.default_rng(1).uniform(0, 1, (2, *own.experiment.task.model.input_size, 3)).astype(np.float32)

    @functools.cache
    def outputs(kind: Literal["float32", "float64"]) -> list[tf.Tensor]:
        return tf.nest.flatten(_folded(own, trained, kind)(tf.constant(images), training=False))

    for number, theirs in enumerate(family.evaluated(trained, images)):
        exact = functools.partial(lambda number: outputs("float64")[number], number)
        made = {
            cause: lambda change=change, at=number: _evaluated_otherwise(family, trained, images, change)[at].numpy()
            for cause, change in STATISTICS.items()
        }
        clue = Clue("layer", "", made)
        yield case.compare(f"output {number}", outputs("float32")[number], FOLDED, theirs, clue, exact)
    own.note("inference network")


def _trained(own: Own, kind: Literal["float32", "float64"]) -> keras.Model:
    """A network as training builds it, with seeded weights and statistics."""
    with precision(kind):
        model = own.task.build_model()
    seed_weights(model, own)
    return model


def _evaluated_otherwise(
    family: Family, trained: keras.Model, images: np.ndarray, change: Callable[[str, np.ndarray], np.ndarray]
) -> Sequence[tf.Tensor]:
    """The trained network's outputs with other moving statistics, which are then put back."""
    kept = {variable.path: variable.numpy() for variable in trained.non_trainable_variables}
    for variable in trained.non_trainable_variables:
        if _is_statistic(variable):
            variable.assign(change(variable.path.rpartition("/")[2], kept[variable.path]))
    try:
        return family.evaluated(trained, images)
    finally:
        for variable in trained.non_trainable_variables:
            variable.assign(kept[variable.path])


def _folded(own: Own, trained: keras.Model, kind: Literal["float32", "float64"]) -> keras.Model:
    """The same for inference."""
    with precision(kind):
        model = own.task.build_inference_model()
    own.task.fold(trained, model)
    return model


def seed_weights(model: keras.Model, own: Own) -> None:
    """Gives seeded kernels, and batch-norms that shift and scale what they have normalised.

    Their moving statistics are those of a seeded training batch. With others, what goes through a deep network grows
    without bound: its outputs come out as 0 or 1, and those between them are rounding alone.
    """
    config = own.experiment.task.model
    rng = np.random.default_rng(own.experiment.runtime.seed)
    for variable in model.variables:
        name, shape = variable.path.rpartition("/")[2], tuple(variable.shape)
        if name == "kernel":
            value = rng.normal(0, np.sqrt(2 / max(1, np.prod(shape[:-1]))), shape)
        elif name == "gamma":
            value = rng.uniform(0.6, 1.4, shape)
        else:
            value = rng.normal(0, 0.1, shape)
        if tf.as_dtype(variable.dtype).is_floating and not _is_statistic(variable):
            variable.assign(value)
    family = own.family
    images, _ = own.task.prepare(family.plain(family.batch(family.labels(rng), tuple(config.input_size), rng)))
    held = [variable.value for variable in model.non_trainable_variables]
    nothing = [
        0 * one if _is_statistic(variable) else one
        for variable, one in zip(model.non_trainable_variables, held, strict=True)
    ]
    _, left = model.stateless_call([one.value for one in model.trainable_variables], nothing, images, training=True)
    for variable, share in zip(model.non_trainable_variables, left, strict=True):
        if _is_statistic(variable):
            variable.assign(share / (1 - config.norm_momentum))


def _is_statistic(variable: keras.Variable) -> bool:
    return variable.path.rpartition("/")[2] in ("moving_mean", "moving_variance")


def detections(case: Case, subject: Subject) -> Iterator[Row]:
    """Detections of given outputs by the experiment's protocol: normalising, decoding, the way back, NMS.

    The first image has more than are kept, so that their number shows; the second few, so that the floor does.
    """
    own, protocol = subject.own, subject.experiment.task.evaluation
    if protocol.sees_whole_images:
        yield case.skip("detections", "several scales are merged on the host; the recorded cases compare that")
        return
    rng = np.random.default_rng(subject.experiment.runtime.seed)
    family = own.family
    for image_size, content in zip(SIZES, (family.maps, family.few), strict=True):
        name = f"image of {image_size[0]} x {image_size[1]}"
        image = tf.constant(rng.integers(0, 256, (*image_size, 3)).astype(np.uint8))
        given = resize_image(image, tuple(subject.experiment.task.model.input_size), protocol)
        shown = _Shown(own, given.numpy(), image_size)
        maps = next((one for one in shown.seeded(content) if shown.is_decided(one)), None)
        if maps is None:
            yield case.skip(name, OPEN)
            continue
        batch = EvalBatch(given[tf.newaxis], tf.constant([image_size]), tf.constant([0], tf.int64))
        found = own.detect(shown.network(maps), batch)
        clue = Clue("detections", CLUE, shown.mistakes(maps))
        yield case.compare(name, _rows(found), KEPT, shown.kept(maps, protocol), clue)
    own.note("task.evaluation")


class _Shown:
    """One image as evaluation shows it, and a stand-in for the network whose outputs depend on it a little."""

    def __init__(self, own: Own, given: Pixels, image_size: tuple[int, int]) -> None:
        self.own, self.given, self.image_size = own, given, image_size
        self.family, self.protocol = own.family, own.experiment.task.evaluation

    def seeded(self, content: Callable[[Outputs], Outputs]) -> Iterator[Outputs]:
        """Maps for the decoder, from one seed after the other. content: from a network's outputs."""
        size = self.given.shape[:2]
        for seed in range(TRIES):
            rng = np.random.default_rng((self.own.experiment.runtime.seed, seed))
            yield [each[2:3] for each in content(self.family.outputs(self.family.labels(rng), size, rng))]

    def network(self, maps: Outputs) -> Callable[..., list[tf.Tensor]]:
        """Called as the network is: its first output is the first map, and a fourth of the mean of what it is given."""
        first, *rest = (tf.constant(each) for each in maps)
        return lambda images, training: [first + tf.reduce_mean(images) / 4, *rest]

    def is_decided(self, maps: Outputs) -> bool:
        """Whether the same is kept of the maps with a little noise."""
        right = self.kept(maps, self.protocol)
        noisy = (self.kept(_rounded(maps, seed), self.protocol) for seed in range(NOISES))
        return all(_are_same(one, right) for one in noisy)

    def kept(self, maps: Outputs, protocol: EvaluationProtocol, factor: float = 1 / 255) -> Kept:
        """Detections by the stated formulas. factor: from levels to the network's input."""
        first, *rest = maps
        first = first + np.float32(self.given.astype(float).mean() * factor / 4)
        size = self.given.shape[:2]
        boxes, scores = self.family.decode([first, *rest], size)
        return _kept(boxes[0], scores[0], self.image_size, size, protocol)

    def mistakes(self, maps: Outputs) -> Mapping[str, Callable[[], Kept]]:
        """What would be detected with a known mistake."""
        found = _by_other_protocols(self.protocol, lambda protocol: self.kept(maps, protocol))
        return found | {"image_range": lambda: self.kept(maps, self.protocol, 1.0)}


def _kept(
    boxes: Numbers, scores: Numbers, image_size: tuple[int, int], size: tuple[int, int], protocol: EvaluationProtocol
) -> Kept:
    """The detections of one image's decoded boxes, relative to the input, by the stated formulas."""
    boxes = placement.to_original(np.asarray(boxes, float), image_size, size, protocol)
    found = nms.detections(boxes.astype(np.float32), np.asarray(scores, np.float32), protocol)
    return np.column_stack([found.boxes, found.classes, found.scores]).astype(float)


def _by_other_protocols(
    protocol: EvaluationProtocol, detected: Callable[[EvaluationProtocol], Kept]
) -> dict[str, Callable[[], Kept]]:
    """Detections by another protocol than is configured, by cause."""

    def otherwise(**changed: object) -> Callable[[], Kept]:
        return lambda: detected(protocol.model_copy(update=changed))

    other = {"stretch": "letterbox", "letterbox": "stretch"}.get(protocol.resize, "stretch")
    found = {
        "letterbox_or_stretch": otherwise(resize=other),
        "score_floor none": otherwise(score_floor=0.0),
        "detections_limit": otherwise(detections_per_image=10),
        "nms_kind none": otherwise(nms="none"),
    }
    for cause, changed in protocol_mistakes(protocol):
        found[cause] = lambda changed=changed: detected(changed)
    return found


def _rounded(maps: Outputs, seed: int) -> Outputs:
    """The maps as another program might give them."""
    rng = np.random.default_rng(seed)
    sizes = [ROUNDING * np.abs(each).max(initial=0) for each in maps]
    return [
        (one + size * rng.standard_normal(one.shape)).astype(np.float32) for one, size in zip(maps, sizes, strict=True)
    ]


def _are_same(rows: Kept, others: Kept) -> bool:
    return judge(measure_rows("detections", rows, others), KEPT).passed


def _rows(found: Detections) -> Kept:
    """The detections of the first image."""
    rows = np.column_stack([found.boxes[0], found.classes[0], found.scores[0]])
    return rows[found.valid[0].numpy()].astype(float)


def export(case: Case, subject: Subject) -> Iterator[Row]:
    """The signatures of a SavedModel that was written and loaded again, beside the detections of evaluation."""
    own = subject.own.small
    experiment = own.experiment
    protocol, size = experiment.task.evaluation, tuple(experiment.task.model.input_size)
    if protocol.sees_whole_images:
        yield case.skip("export", "this protocol merges scales on the host and cannot be exported")
        return
    inference = _folded(own, _trained(own, "float32"), "float32")
    gc.collect()  # what it was made of is large
    shown = [*_decided(own, inference, SIZES[0], 2), *_decided(own, inference, SIZES[1], 1)]
    if len(shown) < 3:
        yield case.skip("export", OPEN)
        return
    first, second, other = shown
    with graphs_as_written(), tempfile.TemporaryDirectory() as folder:
        classes = experiment.task.data.classes
        export_saved_model(inference, own.task.decode, protocol, classes, size, f"{folder}/export")
        gc.collect()  # its graphs hold the weights many times over, and so do those that are loaded
        signatures = tf.saved_model.load(f"{folder}/export").signatures
        raw = signatures["raw"](images=first.images)
        for name, theirs in zip(("boxes", "scores"), own.decode(first.maps), strict=True):
            yield case.compare(f"raw {name}", raw[name], SAME, theirs, Clue("layer"))
        asked = {
            "serving_default": ({"images": tf.constant(np.stack([first.image, second.image]))}, (first, second)),
            "encoded": (
                {"contents": tf.stack(list(map(tf.io.encode_png, (first.image, other.image))))},
                (first, other),
            ),
        }
        for name, (inputs, images) in asked.items():
            found = signatures[name](**inputs)
            for number, one in enumerate(images):
                clue = Clue("detections", CLUE, one.export_mistakes())
                expected = _clipped(one.kept(one.maps))
                yield case.compare(f"{name}, image {number}", _exported(found, number, one.sides), KEPT, expected, clue)
    own.note("export")


class _Evaluated:
    """A seeded image, and what evaluation makes of it."""

    def __init__(self, own: Own, inference: keras.Model, sides: tuple[int, int], seed: int) -> None:
        task = own.experiment.task
        self.own, self.inference, self.sides, self.protocol = own, inference, sides, task.evaluation
        self.size = tuple(task.model.input_size)
        self.image = np.random.default_rng((2, seed)).integers(0, 256, (*sides, 3)).astype(np.uint8)
        given = resize_image(tf.constant(self.image), self.size, self.protocol)[tf.newaxis]
        self.batch = EvalBatch(given, tf.constant([sides]), tf.constant([0], tf.int64))
        self.images = normalise(given)
        self.maps = tf.nest.flatten(inference(self.images, training=False))

    def kept(self, maps: Sequence[Float32[tf.Tensor, "batch ..."]]) -> Kept:
        """Detections by the experiment's protocol, of these maps."""
        return _rows(self.own.detect(lambda images, training: maps, self.batch))

    def is_decided(self) -> bool:
        """Whether the same is decoded and kept of the image with a little noise."""
        right, kept = self.own.decode(self.maps), _clipped(self.kept(self.maps))
        for seed in range(NOISES):
            noise = ROUNDING * np.random.default_rng(seed).standard_normal(self.images.shape)
            noisy = tf.nest.flatten(self.inference(self.images + noise.astype(np.float32), training=False))
            pairs = zip(self.own.decode(noisy), right, strict=True)
            if not all(judge(measure("decoded", one, other), SAME).passed for one, other in pairs):
                return False
            if not _are_same(_clipped(self.kept(noisy)), kept):
                return False
        return True

    def export_mistakes(self) -> Mapping[str, Callable[[], Kept]]:
        """What a graph would detect that has another step before or behind the network than evaluation has."""

        decoded = functools.cache(lambda: self.own.decode(self.maps))

        def selected(boxes: tf.Tensor, scores: tf.Tensor, by: EvaluationProtocol = self.protocol) -> Kept:
            return _clipped(_kept(boxes[0], scores[0], self.sides, self.size, by))

        def detected(pixels: tf.Tensor, by: EvaluationProtocol = self.protocol) -> Kept:
            return selected(*self.own.decode(self.inference(pixels, training=False)), by)

        def otherwise_resized() -> Kept:
            rule = {"stretch": "letterbox"}.get(self.protocol.resize, "stretch")
            other = self.protocol.model_copy(update={"resize": rule})
            return detected(normalise(resize_image(tf.constant(self.image), self.size, other)[tf.newaxis]), other)

        return {
            **_by_other_protocols(self.protocol, lambda by: selected(*decoded(), by)),
            "image_range twice": lambda: detected(normalise(self.images)),
            "image_range never": lambda: detected(255.0 * self.images),
            "channels_reversed": lambda: detected(self.images[..., ::-1]),
            "preprocessing_missing": otherwise_resized,
        }


def _decided(own: Own, inference: keras.Model, sides: tuple[int, int], wanted: int) -> list[_Evaluated]:
    """The first seeded images of this size in which rounding turns nothing, at most so many."""
    seeded = (_Evaluated(own, inference, sides, seed) for seed in range(TRIES))
    return list(itertools.islice((one for one in seeded if one.is_decided()), wanted))


def _exported(found: Mapping[str, tf.Tensor], number: int, sides: tuple[int, int]) -> Kept:
    """What a signature gives for one image of the batch, its boxes relative to the image."""
    count = int(found["num_detections"][number])
    boxes = found["detection_boxes"][number, :count].numpy() / np.tile(sides, 2)
    parts = (found[name][number, :count] for name in ("detection_classes", "detection_scores"))
    return np.column_stack([boxes, *parts])


def _clipped(rows: Kept) -> Kept:
    """Boxes within the image, as an export gives them."""
    return np.column_stack([np.clip(rows[:, :4], 0, 1), rows[:, 4:]])
