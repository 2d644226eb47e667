"""Gates 2 and 3: what is evaluated and exported, beside the network that is trained and the stated formulas."""

import contextlib
import functools
import gc
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float, Float32, Float64, Shaped, UInt8

from dataloaders.batch import EvalBatch
from official.vision.nms import Detections
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import normalise, resize_image
from reproduction.experiment.own import Own
from reproduction.experiment.subject import Subject
from reproduction.restated import nms, placement
from reproduction.seeded.family import Family, Outputs
from reproduction.seeded.rounding import NOISES, compare_decided
from reproduction.seeded.saved_program import Signature, signatures_of
from reproduction.seeded.weights import is_statistic, seed_weights
from reproduction.traces.case import NEAR, Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.causes.overlaps import protocol_mistakes
from reproduction.traces.compare import AbsoluteAndRelative, Numbers, OfAbsmax, SameSet, judge, measure_rows
from reproduction.traces.precision import graphs_as_written, precision
from serving.formats import write_export
from serving.formats.graph import detection_graph

FOLDED = OfAbsmax(bound=1e-4)  # folding rounds every weight
KEPT = SameSet(bound=1e-4)
# The same numbers by another program. Its convolutions add up otherwise with other instructions: where a corner of a
# large box is near 0, 7.5e-6 with AVX2, and 2e-5 where pixels have a noise of 1e-6.
SAME = AbsoluteAndRelative(absolute=1e-4, relative=1e-4)
CLUE = "yxyx class score"
SIZES = ((150, 121), (64, 230))  # (height, width) of the seeded images
BATCHES = {"serving_default": (SIZES[0], SIZES[0]), "encoded": SIZES}  # of an export's signatures
ROUNDING = 1e-7  # of the largest number: a decision (a peak, a rank, NMS) that so little noise turns is open
TRIES = 8
OPEN = f"each of {TRIES} seeds has a decision that rounding may turn"
# What the fold may have taken for the moving statistics (variance 0.6..1.4): of (name, the statistic, epsilon).
STATISTICS: Mapping[str, Callable[[str, np.ndarray, float], np.ndarray]] = {
    "batch_norm_epsilon 1e-3": lambda name, one, epsilon: one + 1e-3 - epsilon if name == "moving_variance" else one,
    "batch_norm_epsilon 1e-4": lambda name, one, epsilon: one + 1e-4 - epsilon if name == "moving_variance" else one,
    "batch_norm_epsilon_outside": lambda name, one, epsilon: (
        np.square(np.sqrt(one) + epsilon) - epsilon if name == "moving_variance" else one
    ),
    "fold_statistics no root": lambda name, one, epsilon: np.square(one) if name == "moving_variance" else one,
    "fold_statistics root twice": lambda name, one, epsilon: np.sqrt(one) if name == "moving_variance" else one,
    "fold_statistics variance 1": lambda name, one, epsilon: np.ones_like(one) if name == "moving_variance" else one,
    "fold_statistics mean 0": lambda name, one, epsilon: np.zeros_like(one) if name == "moving_mean" else one,
    "fold_statistics as at the start": lambda name, one, epsilon: np.full_like(one, name == "moving_variance"),
}
Pixels = Float[np.ndarray, "height width 3"] | UInt8[np.ndarray, "height width 3"]  # levels 0..255
Kept = Float64[np.ndarray, "kept 6"]  # box yxyx relative to the image, class, score
Decoded = tuple[Float[np.ndarray, "boxes yxyx=4"], Float[np.ndarray, "boxes classes"]]  # relative to the input; scores


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
    family: Family,
    trained: keras.Model,
    images: np.ndarray,
    change: Callable[[str, np.ndarray, float], np.ndarray],
) -> Sequence[tf.Tensor]:
    """The trained network's outputs with other moving statistics, which are then put back."""
    kept = {variable.path: variable.numpy() for variable in trained.non_trainable_variables}
    for variable in trained.non_trainable_variables:
        if is_statistic(variable):
            layer, _, name = variable.path.rpartition("/")
            variable.assign(change(name, kept[variable.path], trained.get_layer(layer).epsilon))
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
    """The signatures of a SavedModel that was written and loaded again.

    `raw` is compared with the network for inference and its decoder. What the other signatures detect is compared with
    the formulas of what `raw` gives for the same pixels: so no decision hangs on how two programs round.
    """
    own = subject.own.small
    experiment = own.experiment
    protocol, size = experiment.task.evaluation, tuple(experiment.task.model.input_size)
    if protocol.sees_whole_images:
        yield case.skip("export", "this protocol merges scales on the host and cannot be exported")
        return
    inference = _folded(own, _trained(own, "float32"), "float32")
    gc.collect()  # what it was made of is large
    with graphs_as_written(), tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as loaded:
        graph = detection_graph(inference, own.task.decode, protocol, experiment.task.data.classes, size)
        write_export(graph, "saved_model", f"{folder}/export")
        del graph
        gc.collect()  # its functions hold the weights many times over, and so do those that are loaded
        signatures = loaded.enter_context(signatures_of(f"{folder}/export"))
        yield from _raw_rows(case, own, inference, signatures["raw"])
        for name, sides in BATCHES.items():
            tried = (_Batch(own, signatures["raw"], sides, seed) for seed in range(TRIES))
            batch = next((one for one in tried if one.is_decided()), None)
            if batch is None:
                yield case.skip(name, OPEN)
                continue
            found = signatures[name](**batch.given(name))
            for number, one in enumerate(sides):
                clue = Clue("detections", CLUE, batch.mistakes(number))
                expected = batch.kept(number)
                yield case.compare(f"{name}, image {number}", _exported(found, number, one), KEPT, expected, clue)
    own.note("export")


def _raw_rows(case: Case, own: Own, inference: keras.Model, raw: Signature) -> Iterator[Row]:
    """What the export's network and decoder give, beside the network for inference and the experiment's decoder.

    Left out are the boxes that as little noise in the pixels moves near the bound: a deep network enlarges rounding.
    """
    batch = _Batch(own, raw, BATCHES["serving_default"], 0)
    pixels = tf.stack(batch.pixels)

    def decoded(noise: Numbers) -> list[np.ndarray]:
        outputs = inference(pixels + tf.constant(noise, tf.float32), training=False)
        return [part.numpy() for part in own.decode(tf.nest.flatten(outputs))]

    theirs = decoded(np.zeros(pixels.shape))
    is_open = np.zeros(theirs[0].shape[:2], bool)  # [batch, boxes]
    for seed in range(NOISES):
        noisy = decoded(ROUNDING * np.random.default_rng(seed).standard_normal(pixels.shape))
        for moved, right in zip(noisy, theirs, strict=True):
            room = NEAR * (SAME.absolute + SAME.relative * np.abs(right))
            is_open |= np.any(np.abs(moved - right) > room, axis=-1)
    is_open = is_open[..., np.newaxis]
    for name, ours, expected in zip(("boxes", "scores"), zip(*batch.decoded, strict=True), theirs, strict=True):
        yield compare_decided(case, f"raw {name}", np.stack(ours), SAME, expected, Clue("layer"), is_open, "boxes")


class _Batch:
    """Seeded images of one call, and what the export's network and decoder make of them."""

    def __init__(
        self,
        own: Own,
        raw: Signature,
        sizes: Sequence[tuple[int, int]],
        seed: int,
    ) -> None:
        task = own.experiment.task
        self.protocol, self.size, self.raw, self.sizes = task.evaluation, tuple(task.model.input_size), raw, sizes
        rng = np.random.default_rng((2, seed))
        self.images = [rng.integers(0, 256, (*sides, 3)).astype(np.uint8) for sides in sizes]
        self.pixels = self._shown(self.protocol)
        self.decoded = self._decoded(self.pixels)

    def given(self, name: str) -> dict[str, tf.Tensor]:
        """What the signature of this name is given."""
        if name == "encoded":
            return {"contents": tf.stack([tf.io.encode_png(image) for image in self.images])}
        return {"images": tf.constant(np.stack(self.images))}

    def _shown(self, protocol: EvaluationProtocol) -> list[Float32[tf.Tensor, "height width 3"]]:
        """The images as the network is given them."""
        return [normalise(resize_image(tf.constant(image), self.size, protocol)) for image in self.images]

    def _decoded(self, pixels: Sequence[Float32[tf.Tensor, "height width 3"]]) -> list[Decoded]:
        """Of each image. In one batch, as in the other signatures: in another one the same network rounds otherwise."""
        one_size = len({tuple(image.shape) for image in pixels}) == 1
        batches = [tf.stack(pixels)] if one_size else [image[tf.newaxis] for image in pixels]
        found = [self.raw(images=batch) for batch in batches]
        parts = (np.concatenate([each[name] for each in found]) for name in ("boxes", "scores"))
        return list(zip(*parts, strict=True))

    def kept(self, number: int) -> Kept:
        """The detections of one image, by the formulas."""
        return self._selected(self.decoded[number], number, self.protocol)

    def _selected(self, decoded: Decoded, number: int, protocol: EvaluationProtocol) -> Kept:
        return _clipped(_kept(*decoded, self.sizes[number], self.size, protocol))

    def is_decided(self) -> bool:
        """Whether the same is kept of boxes and scores with a little noise."""
        for number, (boxes, scores) in enumerate(self.decoded):
            right = self.kept(number)
            for seed in range(NOISES):
                rng = np.random.default_rng(seed)
                moved = boxes + ROUNDING * np.abs(boxes).max() * rng.standard_normal(boxes.shape)
                other = scores * (1 + ROUNDING * rng.standard_normal(scores.shape))
                if not _are_same(self._selected((moved, other), number, self.protocol), right):
                    return False
        return True

    def mistakes(self, number: int) -> Mapping[str, Callable[[], Kept]]:
        """What a graph would detect that has another step before or behind the network than evaluation has."""
        here, first = self.sizes[number], self.sizes[0]

        def detected(change: Callable[[tf.Tensor], tf.Tensor]) -> Kept:
            return self._selected(self._decoded([change(one) for one in self.pixels])[number], number, self.protocol)

        def otherwise_resized() -> Kept:
            rule = {"stretch": "letterbox"}.get(self.protocol.resize, "stretch")
            other = self.protocol.model_copy(update={"resize": rule})
            return self._selected(self._decoded(self._shown(other))[number], number, other)

        def of_first_size() -> Kept:
            rows = _clipped(_kept(*self.decoded[number], first, self.size, self.protocol))
            return rows * [*np.tile(np.divide(first, here), 2), 1, 1]

        return {
            **_by_other_protocols(self.protocol, lambda by: self._selected(self.decoded[number], number, by)),
            "image_range twice": lambda: detected(normalise),
            "image_range never": lambda: detected(lambda pixels: 255.0 * pixels),
            "channels_reversed": lambda: detected(lambda pixels: pixels[..., ::-1]),
            "preprocessing_missing": otherwise_resized,
            **({"image_size_of_another": of_first_size} if here != first else {}),
        }


def _exported(found: Mapping[str, Shaped[np.ndarray, "..."]], number: int, sides: tuple[int, int]) -> Kept:
    """What a signature gives for one image of the batch, its boxes relative to the image."""
    count = int(found["num_detections"][number])
    boxes = found["detection_boxes"][number, :count] / np.tile(sides, 2)
    parts = (found[name][number, :count] for name in ("detection_classes", "detection_scores"))
    return np.column_stack([boxes, *parts])


def _clipped(rows: Kept) -> Kept:
    """Boxes within the image, as an export gives them."""
    return np.column_stack([np.clip(rows[:, :4], 0, 1), rows[:, 4:]])
