"""What CenterNet draws at random, to compare distributions with, not single numbers."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

from configs.centernet.augmentation import CenterNetAugmentation

Samples = Mapping[str, Shaped[np.ndarray, "..."]]


def drawn(config: CenterNetAugmentation, size: tuple[int, int], rng: np.random.Generator, count: int) -> Samples:
    """lib/datasets/sample/ctdet.py __getitem__, lib/utils/image.py color_aug, _get_border.

    size: (height, width) of the image; the centre is told in the mirrored image where it is mirrored.
    """
    height, width = size
    longer = max(height, width)
    if config.crop == "random":
        scale = longer * rng.choice(np.arange(0.6, 1.4, 0.1), count)
        border_x, border_y = (_border(side) for side in (width, height))
        x = rng.integers(border_x, width - border_x, count).astype(float)
        y = rng.integers(border_y, height - border_y, count).astype(float)
    else:
        x, y = (
            side / 2 + longer * np.clip(rng.standard_normal(count) * config.shift, -2 * config.shift, 2 * config.shift)
            for side in (width, height)
        )
        noise = np.clip(rng.standard_normal(count) * config.scale + 1, 1 - config.scale, 1 + config.scale)
        scale = longer * noise
    flip = rng.random(count) < config.flip
    samples = {"flip": flip, "scale": scale, "centre x": np.where(flip, width - x - 1, x), "centre y": y}
    if config.colour:
        orders = np.array([rng.permutation(3) for _ in range(count)])
        samples |= {f"colour {place}": orders[:, place] for place in range(3)}
        samples |= {f"strength {place}": 1 + rng.uniform(-0.4, 0.4, count) for place in range(3)}
        samples |= {f"lighting {place}": rng.normal(0, 0.1, count) for place in range(3)}
    return samples


def _border(side: int) -> int:
    least = 1
    while side - 128 // least <= 128 // least:
        least *= 2
    return 128 // least
