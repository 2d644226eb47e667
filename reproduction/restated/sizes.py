"""Input sizes of multi-scale training (AlexeyAB detector.c train_detector, with random=1)."""

import numpy as np

Size = tuple[int, int]  # (height, width) in pixels
STRIDE = 32


def size_of(base: Size, factor: float) -> Size:
    """The size for a drawn factor: rounded to whole strides and one more; for a factor below 1 at most the base."""
    sides = tuple(int(factor * side / STRIDE + 0.5) * STRIDE + STRIDE for side in base)
    return base if factor < 1 and any(side > whole for side, whole in zip(sides, base, strict=True)) else sides


def possible(base: Size, coefficient: float) -> list[Size]:
    """All sizes that a factor from 1 / coefficient to coefficient may give, the smallest first."""
    factors = np.float32(np.geomspace(1 / coefficient, coefficient, 200_001))
    return sorted({size_of(base, float(factor)) for factor in factors})
