"""Vocabulary of data: sources, the checks at the door, augmentation."""

from typing import Annotated, Literal

import pydantic
from pydantic import Discriminator, Field, PositiveInt, Tag

from configs.colour import Colour, DarknetFloat, HsvGains
from official.core.config import Config, Duration, type_or


class CocoSource(Config):
    """COCO JSON. Boxes: `bbox` = x, y, width, height in pixels. Categories are matched to `classes` by name."""

    type: Literal["coco"] = "coco"
    annotations: str
    images: str
    train_crowds: bool = Field(False, description="Whether training sees crowd regions as objects, as CenterNet does.")


class VocSource(Config):
    """Pascal VOC: `root`/Annotations/*.xml, `root`/JPEGImages, `root`/ImageSets/Main/`split`.txt."""

    type: Literal["voc"] = "voc"
    root: str
    split: str


class DarknetSource(Config):
    """Darknet's own: the images of a list that a `.data` file names, a label file for each; see its reader."""

    type: Literal["darknet"] = "darknet"
    data: str = Field(description="The .data file, with `train`, `valid` and `names`.")
    split: Literal["train", "valid"]


Source = Annotated[CocoSource | VocSource | DarknetSource, Field(discriminator="type")]


class Augmentation(Config):
    """Random geometry and colour of one image; every parameter is drawn before anything is decoded."""

    type: Literal["darknet"] = "darknet"
    flip: bool = True
    jitter: float = Field(0.0, ge=0, lt=1, description="Each edge moves by up to this fraction of the image's side.")
    resize: float = Field(
        1.0, gt=0, description="Objects become up to this many times larger or smaller; below 1: smaller only."
    )
    hue: float = Field(0.0, ge=0, le=0.5, description="Hue is shifted by up to +-this fraction of the colour circle.")
    saturation: float = Field(1.0, gt=0, description="Saturation is multiplied or divided by up to this.")
    exposure: float = Field(1.0, gt=0, description="Value (of HSV) is multiplied or divided by up to this.")
    colour: Colour = Field(DarknetFloat(), description="Whose arithmetic; what else a build does to the pixels.")

    @pydantic.model_validator(mode="after")
    def _draws_are_of_one_kind(self) -> "Augmentation":
        if isinstance(self.colour, HsvGains) and (self.hue, self.saturation, self.exposure) != (0, 1, 1):
            raise ValueError(
                "hue, saturation, exposure: Darknet's, without meaning beside colour: {type: hsv_gains}, which has its "
                "own hue, saturation and value; leave them out, or choose darknet_float or darknet_opencv"
            )
        return self


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


AnyAugmentation = Annotated[
    Annotated[Augmentation, Tag("darknet")] | Annotated[CenterNetAugmentation, Tag("centernet")],
    Discriminator(type_or("darknet")),
]


class Split(Config):
    """One split of the data and how it is read."""

    source: Source
    batch_size: PositiveInt = Field(description="Of the whole step: all replicas and all micro-batches.")
    on_bad: Literal["fail", "skip"] = Field(
        "fail",
        description="What happens to bad boxes and images. A malformed annotation file (XML, JSON) is always fatal.",
    )
    threads: PositiveInt | None = Field(None, description="Parallel decoders; none: chosen by tf.data.")


class MultiScale(Config):
    """Training at several input sizes in turn, all multiples of 32 (Darknet's random=1); evaluation keeps to one."""

    coefficient: float = Field(1.4, gt=1, description="From input_size / this to one stride above input_size * this.")
    every: Duration = Field(Duration(steps=10), description="How long training stays at one size.")
    sizes: Literal["all"] | Annotated[int, Field(ge=2)] = Field(
        5, description="So many of the sizes in that range are compiled, evenly spread."
    )
    largest_from: Duration | None = Field(
        None, description="Largest size only from here on, for batch-norm's statistics (Darknet: the last 100 steps)."
    )


class TrainSplit(Split):
    max_boxes: PositiveInt = Field(100, description="Boxes are padded to this many; an image with more is reported.")
    augmentation: AnyAugmentation | None = None
    multi_scale: MultiScale | None = None


class Data(Config):
    classes: tuple[str, ...] = Field(min_length=1, description="Class names; the position is the contiguous class id.")
    train: TrainSplit
    validation: Split
