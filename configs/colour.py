"""Vocabulary of colours: whose arithmetic changes hue, saturation and brightness of a training image."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from official.core.config import Config, type_or


class DarknetFloat(Config):
    """Darknet's build without OpenCV: HSV in float, nothing is rounded."""

    type: Literal["darknet_float"] = "darknet_float"


class DarknetOpencv(Config):
    """Darknet's build with OpenCV: HSV in 8 bits, hue in 180 steps that stops at red instead of turning below it."""

    type: Literal["darknet_opencv"] = "darknet_opencv"
    blur: int = Field(
        0,
        ge=0,
        le=63,
        description="A third of the images is left alone, a third is blurred behind its objects (17 x 17), a third "
        "everywhere, by a kernel of this size; 1: behind the objects too.",
    )
    gaussian_noise: int = Field(
        0, ge=0, le=127, description="Deviation, in levels, of the noise on half of the images; it only brightens."
    )


class HsvGains(Config):
    """Scaled-YOLOv4's and YOLOv7's: OpenCV's 8-bit HSV, each channel times 1 + U(-1, 1) times its number here."""

    type: Literal["hsv_gains"] = "hsv_gains"
    hue: float = Field(0.015, ge=0, le=1)
    saturation: float = Field(0.7, ge=0, le=1)
    value: float = Field(0.4, ge=0, le=1)


Colour = Annotated[
    Annotated[DarknetFloat, Tag("darknet_float")]
    | Annotated[DarknetOpencv, Tag("darknet_opencv")]
    | Annotated[HsvGains, Tag("hsv_gains")],
    Discriminator(type_or("darknet_float")),
]
