"""Another class count for a Darknet cfg, as Darknet's users edit it in by hand."""

import dataclasses

from modeling.darknet.cfg import Network
from modeling.darknet.grammar import CfgError
from modeling.darknet.options import Layer
from modeling.darknet.sections import Connected, Convolutional, Detection, Region


def with_classes(network: Network, classes: int) -> Network:
    """The network for `classes` classes: in its heads, and in the filters (v1: output) of the layer before each.

    What describes the old classes goes: `counters_per_class`, `tree` and `map`. The same network where it has as many.

    Raises:
        CfgError: fewer than one class; no layer before a head that could be changed.
    """
    if classes < 1:
        raise CfgError(f"{network.source}: a detector needs at least one class, got {classes}")
    layers = list(network.layers)
    for head in network.heads:
        more = _numbers_per_class(head) * (classes - head.classes)
        if not more:
            continue
        before = layers[head.index - 1] if head.index else None
        key = {Convolutional: "filters", Connected: "output"}.get(type(before))
        if key is None:
            raise CfgError(
                f"{network.where(head)} has classes={head.classes}; to make them {classes}, the layer before it must be"
                " [convolutional] or [connected]"
            )
        layers[before.index] = dataclasses.replace(before, **{key: getattr(before, key) + more})
        described = {key: None for key in ("counters_per_class", "tree", "map") if hasattr(head, key)}
        layers[head.index] = dataclasses.replace(head, classes=classes, **described)
    return dataclasses.replace(network, layers=tuple(layers))


def _numbers_per_class(head: Layer) -> int:
    """How many numbers each class adds to what goes into a head, at one place of a grid (v1: in all)."""
    if isinstance(head, Detection):
        return head.side**2
    return head.num if isinstance(head, Region) else len(head.mask)
