"""Which features a decoder reads of a backbone, and which maps it makes of them, by stride."""

from collections.abc import Collection
from typing import NamedTuple

from modeling.layers.shapes import Features
from official.core.errors import UserError


class Strides(NamedTuple):
    reads: tuple[int, ...]
    makes: tuple[int, ...]


COARSEST = 32  # of every backbone
# By a decoder's type. The others are pyramids: they read the coarsest features and all down to the finest map that is
# asked for, at least two, and make a map of each.
FIXED = {"deconv": Strides((32,), (4,)), "dla_up": Strides((4, 8, 16, 32), (4,))}


def strides_of_levels(levels: int, decoder: str, features: Collection[int]) -> tuple[int, ...]:
    """The strides of a head's levels, coarsest first, where a decoder of this type reads features of these strides.

    Raises:
        UserError: it does not make so many levels of them.
    """
    if decoder in FIXED:
        makes = FIXED[decoder].makes
        few, count = len(makes), f"{len(makes)}"
    else:
        makes = tuple(sorted(features, reverse=True))
        few, count = 2, f"2 to {len(makes)}"
    if not few <= levels <= len(makes):
        raise UserError(
            f"model.head.levels: {levels} given, but the {decoder} decoder makes {count} from this"
            f" backbone (strides {sorted(features, reverse=True)})"
        )
    return makes[:levels]


def features_read(features: dict[int, Features], decoder: str, strides: Collection[int]) -> dict[int, Features]:
    """Those of a backbone's features by stride that a decoder of this type reads to make maps of `strides`.

    Raises:
        UserError: the decoder does not make such maps, or the backbone lacks some that it reads.
    """
    if decoder in FIXED:
        reads, makes = FIXED[decoder]
    else:
        finest = min(strides)
        reads = makes = tuple(finest << step for step in range((COARSEST // finest).bit_length()))
    if not set(strides) <= set(makes):
        raise UserError(f"model.decoder: {decoder} makes maps of strides {list(makes)}; the head reads {list(strides)}")
    if lacking := [stride for stride in reads if stride not in features]:
        raise UserError(
            f"model.decoder: {decoder} reads features of strides {list(reads)}; the backbone has {sorted(features)} and"
            f" lacks {lacking}"
        )
    return {stride: features[stride] for stride in reads}


def coarsest_first(features: dict[int, Features]) -> list[tuple[int, Features]]:
    """(stride, features), the largest stride first."""
    return sorted(features.items(), reverse=True)
