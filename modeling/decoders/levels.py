"""Which features a decoder takes."""

from modeling.layers.shapes import Features
from official.core.errors import UserError


def coarsest_first(features: dict[int, Features], levels: int, decoder: str) -> list[Features]:
    """The `levels` coarsest features, of features by stride.

    Raises:
        UserError: a decoder of the type `decoder` does not make so many levels (2 or more) of them.
    """
    strides = sorted(features, reverse=True)
    if not 2 <= levels <= len(features):
        raise UserError(
            f"model.head.levels: {levels} given, but the {decoder} decoder makes 2 to {len(features)} from this"
            f" backbone (strides {strides})"
        )
    return [features[stride] for stride in strides[:levels]]
