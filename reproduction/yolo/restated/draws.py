"""What Darknet draws at random, to compare distributions with, not single numbers."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

from configs.colour import HsvGains
from configs.data import DarknetAugmentation

Samples = Mapping[str, Shaped[np.ndarray, "..."]]


def drawn(config: DarknetAugmentation, size: tuple[int, int], rng: np.random.Generator, count: int) -> Samples:
    """Darknet data.c load_data_detection, utils.c rand_scale: flip, colours, and how far each edge moves inwards.

    size: (height, width) of the image. Hue in turns, edges in pixels.
    """
    flip = rng.integers(0, 2, count) if config.flip else np.zeros(count)
    samples = {"flip": flip, **_colours(config, rng, count)}
    height, width = size
    down = min(config.resize, 1 / config.resize)
    enlarge = {"y": rng.uniform(0, 1, count), "x": rng.uniform(0, 1, count)}  # both edges of a side go together
    for name, side, axis in (
        ("top", height, "y"),
        ("left", width, "x"),
        ("bottom", height, "y"),
        ("right", width, "x"),
    ):
        jitter = int(side * config.jitter)
        edge = np.trunc(rng.uniform(-jitter, jitter, count)) if jitter else np.zeros(count)
        if config.resize != 1:
            outermost = int(side * (1 - 1 / down) / 2)
            innermost = int(side * (1 - down) / 2) if config.resize > 1 else 0
            edge = np.trunc(edge + outermost + (innermost - outermost) * enlarge[axis])
        samples[name] = edge
    return samples


def _colours(config: DarknetAugmentation, rng: np.random.Generator, count: int) -> Samples:
    """Darknet's factors; or, of the hsv_gains, those of Scaled-YOLOv4's augment_hsv, about 1 (its hue's less 1)."""
    if isinstance(config.colour, HsvGains):
        gains = config.colour.hue, config.colour.saturation, config.colour.value
        drawn = [rng.uniform(-1, 1, count) * gain for gain in gains]
        return {"hue": drawn[0], "saturation": 1 + drawn[1], "exposure": 1 + drawn[2]}
    samples = {"hue": rng.uniform(-config.hue, config.hue, count)}
    for name in ("saturation", "exposure"):
        scale = rng.uniform(1, getattr(config, name), count)
        samples[name] = np.where(rng.integers(0, 2, count) == 1, scale, 1 / scale)
    return samples
