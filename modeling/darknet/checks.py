"""What the options of a cfg must be to each other; Darknet checks some of it, and on the rest misreads memory.

Whether shapes fit is checked by shapes.py.
"""

from collections.abc import Callable, Sequence

from modeling.darknet.grammar import CfgError, Entry, Note, SectionText, short
from modeling.darknet.sections import (
    Contrastive,
    Convolutional,
    Dropout,
    Empty,
    GaussianYolo,
    Layer,
    Local,
    Net,
    Region,
    Route,
    Sam,
    Shortcut,
    Upsample,
    Yolo,
)


class Place:
    """A section of a cfg, for errors and notes about it."""

    def __init__(self, source: str, name: str, section: SectionText, notes: list[Note]) -> None:
        self.source, self.name, self.section_line = source, short(name), section.line
        self.options: dict[str, Entry] = section.options
        self.notes = notes

    def error(self, key: str | None, problem: str) -> CfgError:
        """An error about option `key` (None: about the section itself). `problem` continues its name."""
        line = self.options[key].line if key in self.options else self.section_line
        return CfgError(f"{self.source}:{line}: [{self.name}] {problem if key is None else f'{key} {problem}'}")

    def note(self, key: str, message: str) -> None:
        line = self.options[key].line if key in self.options else self.section_line
        self.notes.append(Note(self.source, line, self.name, key, message))


def check_net(net: Net, place: Place) -> None:
    """[net]: an input, and a schedule whose lists agree."""
    if not net.inputs and not (net.width and net.height and net.channels):
        raise place.error(None, "needs width, height and channels of the input")
    if net.batch < net.subdivisions:
        place.note("batch", f"batch={net.batch} in {net.subdivisions} subdivisions: Darknet takes 1 example in each")
    elif net.batch % net.subdivisions:
        seen = net.mini_batch * net.subdivisions
        place.note("batch", f"batch={net.batch} in {net.subdivisions} subdivisions: an update sees {seen} examples")
    if net.contrastive and net.mini_batch < 2:
        raise place.error("contrastive", "needs a mini-batch (batch / subdivisions) of at least 2")
    if net.policy not in ("steps", "sgdr"):
        return
    if net.policy == "steps" and (net.steps is None or net.scales is None):
        raise place.error("policy", "is steps, which needs steps= and scales=")
    for name in ("scales", "seq_scales"):
        scales = getattr(net, name)
        if net.steps is None or scales is None:
            continue
        if len(scales) < len(net.steps):
            raise place.error(name, f"has {len(scales)} values; expected one for each of the {len(net.steps)} steps")
        if len(scales) > len(net.steps):
            place.note(
                name, f"{name} has {len(scales)} values; Darknet reads {len(net.steps)}, one for each of the steps"
            )


def check_layer(layer: Layer, earlier: Sequence[Layer], place: Place) -> None:
    """A section after [net], given those before it."""
    for kind, check in _CHECKS:
        if isinstance(layer, kind):
            check(layer, earlier, place)


def _check_index(key: str, index: int, earlier: Sequence[Layer], place: Place) -> Layer:
    """The earlier layer that an option names."""
    if not 0 <= index < len(earlier):
        range_ = (
            f"0 to {len(earlier) - 1} (or -1 to -{len(earlier)})" if earlier else "an earlier layer, but is the first"
        )
        raise place.error(key, f"names layer {index}; layer {len(earlier)} can take {range_}")
    return earlier[index]


def _convolutional(layer: Convolutional, earlier: Sequence[Layer], place: Place) -> None:
    if layer.filters % layer.groups:
        raise place.error("groups", f"is {layer.groups}, which does not divide filters={layer.filters}")
    deformations = layer.sway + layer.rotate + layer.stretch + layer.stretch_sway
    if deformations > 1 or (deformations and layer.size == 1):
        raise place.error(None, "takes one of sway, rotate, stretch and stretch_sway, and only with size of 3 or more")
    if layer.share_index is None:
        return
    shared = _check_index("share_index", layer.share_index, earlier, place)
    if not isinstance(shared, Convolutional):
        raise place.error("share_index", f"names layer {shared.index}, a [{shared.section}]; expected [convolutional]")
    if (layer.size, layer.filters, layer.groups) != (shared.size, shared.filters, shared.groups):
        raise place.error(
            "share_index",
            f"names layer {shared.index}, which has size={shared.size} filters={shared.filters} groups={shared.groups};"
            f" expected this layer's {layer.size}, {layer.filters} and {layer.groups}",
        )
    if layer.batch_normalize and not shared.batch_normalize:
        raise place.error("share_index", f"names layer {shared.index}, which has no batch_normalize to share")


def _local(layer: Local, earlier: Sequence[Layer], place: Place) -> None:
    if layer.pad and layer.size != 2 * layer.pad + 1:
        raise place.error("pad", f"is {layer.pad}; here it is the padding itself: 0, or (size - 1) / 2 of an odd size")


def _route(layer: Route, earlier: Sequence[Layer], place: Place) -> None:
    for index in layer.layers:
        _check_index("layers", index, earlier, place)
    if layer.group_id >= layer.groups:
        raise place.error(
            "group_id", f"is {layer.group_id}; expected 0 to {layer.groups - 1}, as groups={layer.groups}"
        )


def _shortcut(layer: Shortcut, earlier: Sequence[Layer], place: Place) -> None:
    for index in layer.from_:
        _check_index("from", index, earlier, place)
    _needs_input(layer, earlier, place)
    if layer.weights_type != "none" and layer.weights_normalization == "none":
        raise place.error(
            "weights_normalization", f"must be relu, avg_relu or softmax where weights_type={layer.weights_type}"
        )


def _sam(layer: Sam, earlier: Sequence[Layer], place: Place) -> None:
    _check_index("from", layer.from_, earlier, place)
    if layer.activation in ("swish", "mish"):
        place.note("activation", f"[{layer.section}] with {layer.activation} trains wrongly in Darknet (it says so)")


def _needs_input(layer: Layer, earlier: Sequence[Layer], place: Place) -> None:
    if not earlier:
        raise place.error(None, "cannot be the first layer")


def _dropout(layer: Dropout, earlier: Sequence[Layer], place: Place) -> None:
    _needs_input(layer, earlier, place)
    if not 0 <= layer.probability < 1:
        raise place.error("probability", f"is {layer.probability}; expected 0 or more, below 1")


def _upsample(layer: Upsample, earlier: Sequence[Layer], place: Place) -> None:
    if layer.stride == 0 or abs(layer.stride) > 1 << 16:
        raise place.error("stride", f"is {layer.stride}; expected 1 or more, or -1 or less to reduce")


def _contrastive(layer: Contrastive, earlier: Sequence[Layer], place: Place) -> None:
    if not isinstance(_check_index("yolo_layer", layer.yolo_layer, earlier, place), Yolo):
        raise place.error("yolo_layer", f"names layer {layer.yolo_layer}; expected a [yolo] layer")


def _anchors(layer: Yolo | GaussianYolo | Region, earlier: Sequence[Layer], place: Place) -> None:
    entry = place.options.get("anchors")
    listed = entry.text.count(",") + 1 if entry and entry.text else 0
    if listed < 2 * layer.num:
        missing = f"{listed} numbers for num={layer.num} anchors"
        place.note("anchors", f"anchors has {missing}; Darknet takes 0.5 for each that is missing")
    elif listed > 2 * layer.num and isinstance(layer, GaussianYolo):
        raise place.error("anchors", f"has {listed} numbers; expected {2 * layer.num}, as num={layer.num}")
    elif listed > 2 * layer.num:
        place.note("anchors", f"anchors has {listed} numbers; Darknet reads {2 * layer.num}, as num={layer.num}")
    if min(side for anchor in layer.anchors for side in anchor) <= 0:
        raise place.error("anchors", f"has a side of {min(side for anchor in layer.anchors for side in anchor)}")


def _yolo(layer: Yolo | GaussianYolo, earlier: Sequence[Layer], place: Place) -> None:
    largest = max(layer.mask)
    if min(layer.mask) < 0 or largest >= len(layer.anchors):
        wrong = next(number for number in layer.mask if not 0 <= number < len(layer.anchors))
        raise place.error("mask", f"names anchor {wrong}; expected 0 to {len(layer.anchors) - 1}, as num={layer.num}")
    if largest >= layer.num:
        place.note(
            "mask",
            f"mask names anchor {largest}, but num={layer.num}: Darknet reads memory behind its anchors there; here it"
            " is the listed one. Set num to the number of anchors",
        )
    if layer.counters_per_class and len(layer.counters_per_class) != layer.classes:
        raise place.error(
            "counters_per_class", f"has {len(layer.counters_per_class)} values; expected classes={layer.classes}"
        )
    if isinstance(layer, Yolo) and layer.embedding_layer is not None:
        _check_index("embedding_layer", layer.embedding_layer, earlier, place)


_CHECKS: tuple[tuple[type | tuple[type, ...], Callable], ...] = (
    (Convolutional, _convolutional),
    (Local, _local),
    (Route, _route),
    (Shortcut, _shortcut),
    (Sam, _sam),
    (Dropout, _dropout),
    (Empty, _needs_input),
    (Upsample, _upsample),
    (Contrastive, _contrastive),
    ((Yolo, GaussianYolo, Region), _anchors),
    ((Yolo, GaussianYolo), _yolo),
)
