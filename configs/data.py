"""Vocabulary of data: sources, the checks at the door, augmentations that compose examples of pieces of images."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, SerializeAsAny, model_validator

from configs.colour import Colour, DarknetFloat, HsvGains
from official.core.config import Config, Duration


class CocoSource(Config):
    """COCO JSON. Boxes: `bbox` = x, y, width, height in pixels. Categories are matched to `classes` by name."""

    type: Literal["coco"] = "coco"
    annotations: str
    images: str
    train_crowds: bool = Field(False, description="Whether training sees crowd regions as objects.")


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


class TfRecordSource(Config):
    """Shards that `python -m tools.shards` made of any source; read record by record, nothing held in memory."""

    type: Literal["tfrecord"] = "tfrecord"
    manifest: str = Field(description="The NAME.json beside the shards.")


class TfdsSource(Config):
    """TensorFlow Datasets: a prepared builder with `image` and `objects` (`bbox`, `label`).

    Its files can only be read from their start, so the first use converts them to shards, which later ones read.
    """

    type: Literal["tfds"] = "tfds"
    name: str = Field(description="Builder, with config and version where needed: coco/2017:1.1.0.")
    split: str = Field(description="One of the builder's own.")
    data_dir: str | None = Field(None, description="Where TFDS keeps its data; none: ~/tensorflow_datasets.")
    shards: str = Field(description="Folder that receives the shards.")


Source = Annotated[CocoSource | VocSource | DarknetSource | TfRecordSource | TfdsSource, Field(discriminator="type")]


class ReuseWindow(Config):
    """Images are decoded once for a window of examples, which all are made of them: cheaper, but less independent.

    Of an image's `reuse` examples most are in the same batch, or in neighbouring ones.
    """

    examples: int = Field(ge=1, description="In a window. Best: a divisor of the examples of a step and host.")
    reuse: int = Field(ge=2, description="In how many places of these examples each image is seen.")


class DarknetAugmentation(Config):
    """Darknet's: random geometry and colour; every parameter is drawn before anything is decoded.

    cutmix is not here: Darknet has it for classifiers only.
    """

    type: Literal["darknet"] = "darknet"
    flip: bool = True
    jitter: float = Field(0.0, ge=0, lt=1, description="Each edge moves by up to this fraction of the image's side.")
    resize: float = Field(
        1.0, gt=0, description="Objects become up to this many times larger or smaller; below 1: smaller only."
    )
    hue: float = Field(0.0, ge=0, le=0.5, description="Hue is shifted by up to +-this fraction of the colour circle.")
    saturation: float = Field(1.0, gt=0, description="Saturation is multiplied or divided by up to this.")
    exposure: float = Field(1.0, gt=0, description="Value (of HSV) is multiplied or divided by up to this.")
    fill: Literal["padding", "edge", "mean"] = Field(
        "padding",
        description="What a window shows beyond its image: evaluation.padding_value; the edge, repeated (Darknet "
        "without OpenCV); the image's mean (Darknet with OpenCV).",
    )
    mosaic: float = Field(0.0, ge=0, le=1, description="Share of the examples that are made of four images.")
    mosaic_bound: bool = Field(False, description="Boxes of a mosaic are clipped to their image's part of it.")
    mixup: float = Field(0.0, ge=0, le=1, description="Share of the examples that are two images, half of each.")
    window: ReuseWindow | None = Field(None, description="None: every image is decoded for one example.")
    precise: bool = Field(
        False, description="Decode all of every image and resize it as evaluation does, as slowly as the original."
    )
    colour: Colour = Field(DarknetFloat(), description="Whose arithmetic; what else a build does to the pixels.")

    @property
    def composes(self) -> bool:
        """Whether examples are anything but whole images."""
        return self.jitter > 0 or self.resize != 1 or self.mosaic > 0 or self.mixup > 0

    @model_validator(mode="after")
    def _checks(self) -> "DarknetAugmentation":
        if self.window and not self.composes:
            raise ValueError(
                "window: every example is one whole image, so none would be used more than once; leave it out, or set "
                "jitter, resize, mosaic or mixup"
            )
        if self.mosaic > 0 and self.mixup > 0:
            raise ValueError("mosaic and mixup: Darknet knows one of them at a time; expected one of them to be 0")
        if isinstance(self.colour, HsvGains) and (self.hue, self.saturation, self.exposure) != (0, 1, 1):
            raise ValueError(
                "hue, saturation, exposure: Darknet's, without meaning beside colour: {type: hsv_gains}, which has its "
                "own hue, saturation and value; leave them out, or choose darknet_float or darknet_opencv"
            )
        return _checked(self)


class AffineAugmentation(Config):
    """Scaled-YOLOv4's and YOLOv7's (utils/datasets.py): mosaics, an affine map, mixup; colours of their HSV gains."""

    type: Literal["affine"] = "affine"
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a mirrored example (fliplr).")
    colour: HsvGains = Field(HsvGains(), description="hsv_h, hsv_s, hsv_v.")
    mosaic: float = Field(1.0, ge=0, le=1, description="Share of the examples that are mosaics.")
    nine: float = Field(0.0, ge=0, le=1, description="Share of the mosaics that are 3 x 3 (YOLOv7: 0.2), not 2 x 2.")
    centre: Literal["middle", "random"] = Field(
        "random", description="Where four images meet: in the middle of the canvas (Scaled-YOLOv4), or around it."
    )
    mixup: float = Field(0.0, ge=0, le=1, description="Share of the mosaics that are blended with another.")
    mixup_beta: float = Field(8.0, gt=0, description="Both parameters of the blend's beta distribution.")
    translate: float = Field(0.0, ge=0, le=1, description="The centre moves by up to this fraction of the input.")
    scale: tuple[PositiveFloat, PositiveFloat] = Field(
        (1.0, 1.0), description="Uniform between: 1 - s, 1 + s (Scaled-YOLOv4); 1 - s, 1.1 + s (YOLOv7)."
    )
    degrees: float = Field(0.0, ge=0, le=180, description="Rotation of up to this; not 0: the slow way.")
    shear: float = Field(0.0, ge=0, lt=90, description="Degrees of up to this; not 0: the slow way.")
    perspective: float = Field(0.0, ge=0, le=0.001, description="Up to this per pixel; not 0: the slow way.")
    least_side: float = Field(2.0, ge=0, description="Boxes of fewer input pixels are dropped (wh_thr).")
    most_aspect: float = Field(20.0, gt=1, description="Boxes this many times longer than wide are dropped (ar_thr).")
    least_area: float = Field(
        0.1, ge=0, lt=1, description="Boxes of which less is left are dropped (area_thr; Scaled-YOLOv4: 0.2)."
    )
    window: ReuseWindow | None = Field(None, description="None: every image is decoded for one example.")
    precise: bool = Field(False, description="Decode all of every image and warp a canvas, as slowly as the original.")

    @property
    def is_crop(self) -> bool:
        """Whether the map is a scale and a shift: then nothing is warped."""
        return not (self.degrees or self.shear or self.perspective)

    @model_validator(mode="after")
    def _checks(self) -> "AffineAugmentation":
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: {list(self.scale)}; expected the smaller factor first")
        if self.window and not self.is_crop:
            raise ValueError("window: rotation, shear and perspective need whole images; expected them to be 0")
        return _checked(self)


def _checked(augmentation: "Composed") -> "Composed":
    if augmentation.window and augmentation.precise:
        raise ValueError("window and precise: images of a window are decoded for all its examples; expected only one")
    return augmentation


Composed = DarknetAugmentation | AffineAugmentation  # examples made of pieces of images


class Split(Config):
    """One split of the data and how it is read."""

    source: Source
    batch_size: PositiveInt = Field(description="Of the whole step: all replicas and all micro-batches.")
    on_bad: Literal["fail", "skip"] = Field(
        "fail",
        description="What happens to bad boxes and images. A malformed annotation file (XML, JSON) is always fatal.",
    )
    threads: PositiveInt | None = Field(
        None, description="Parallel decoders; none: one for each core that the process may use."
    )


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
    max_boxes: PositiveInt = Field(
        100,
        description="Boxes are padded to this many; an image with more is reported. A mosaic keeps its first.",
    )
    augmentation: SerializeAsAny[Config] | None = None  # a family's own split says which it takes
    plain_last: Duration | None = Field(
        None, description="The run's last steps are trained without augmentation: on images as evaluation shows them."
    )
    multi_scale: MultiScale | None = None

    @model_validator(mode="after")
    def _has_something_to_end(self) -> "TrainSplit":
        if self.plain_last and self.augmentation is None:
            raise ValueError("plain_last: there is no augmentation to leave out; expected `augmentation`, or neither")
        return self


class Data(Config):
    """What a task is trained and validated on; a family's own says more of its training split."""

    classes: tuple[str, ...] = Field(min_length=1, description="Class names; the position is the contiguous class id.")
    train: TrainSplit
    validation: Split
