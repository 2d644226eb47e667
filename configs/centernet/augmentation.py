"""Vocabulary of CenterNet's augmentation."""

from typing import Literal

from pydantic import Field

from official.core.config import Config


class CenterNetAugmentation(Config):
    """CenterNet's affine map and colours (lib/datasets/sample/ctdet.py, lib/opts.py)."""

    type: Literal["centernet"] = "centernet"
    crop: Literal["random", "shift_scale"] = Field(
        "random",
        description="random: a scale of 0.6, 0.7 .. 1.3 and a centre anywhere but near the border. shift_scale: normal "
        "noise on the image's middle and scale, --not_rand_crop.",
    )
    scale: float = Field(0.4, ge=0, lt=1, description="Of shift_scale: deviation and largest change of the scale.")
    shift: float = Field(0.1, ge=0, description="Of shift_scale: deviation of the centre; twice it is the largest.")
    flip: float = Field(0.5, ge=0, le=1, description="Probability.")
    colour: bool = Field(True, description="Brightness, contrast, saturation and lighting.")
    precise: bool = Field(False, description="Decode all of every image and warp it by the protocol's interpolation.")
