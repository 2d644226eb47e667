"""The evaluation protocol: what is done to an image and to its detections before they are scored."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from official.core.config import Config


class EvaluationProtocol(Config):
    """How detections are made and scored. Stored beside every number, and embedded in every export."""

    resize: Literal["stretch", "letterbox", "affine", "keep"] = Field(
        "letterbox",
        description="affine: the longer side fills the input's width, centred to a fraction of a pixel (CenterNet's "
        "fix_res). keep: not resized; each image has an input of its own, with sides of the next multiple of "
        "keep_multiple above (CenterNet's keep_res).",
    )
    keep_multiple: PositiveInt = Field(32, description="A power of 2; CenterNet's hourglass: 128.")
    interpolation: Literal["bilinear", "opencv", "align_corners"] = Field(
        "bilinear",
        description="bilinear: half-pixel centres, rounded. opencv: the same, to the bit of cv2.resize. align_corners: "
        "Darknet's own, not rounded: its evaluation images are float32. None smooths.",
    )
    padding_value: float = Field(
        127.5, ge=0, le=255, description="Level around a letterboxed image (Darknet: 0.5); rounded with its pixels."
    )
    score_floor: float = Field(0.001, ge=0, lt=1)
    nms: Literal["per_class_iou", "greedynms", "diounms", "soft_nms", "none"] = Field(
        "per_class_iou",
        description="none: nothing is suppressed. soft_nms: scores fall with the overlap (CenterNet's, of several "
        "scales). Otherwise what suppresses a worse box of its class, above nms_threshold. per_class_iou: the IoU "
        "(Darknet's default). greedynms, diounms: the IoU less the centres' squared distance over the squared diagonal "
        "of the hull, to the power of 0.6 or of beta_nms.",
    )
    nms_threshold: float = Field(0.45, gt=0, le=1)
    beta_nms: PositiveFloat = Field(0.6, description="Of diounms alone.")
    candidates: PositiveInt = Field(1000, description="The best (box, class) pairs of an image that enter NMS.")
    detections_per_image: PositiveInt = 100
    flip_test: bool = Field(False, description="CenterNet: maps are averaged with those of the mirrored image.")
    scales: tuple[PositiveFloat, ...] = Field(
        (1.0,), min_length=1, description="CenterNet: the image is also seen at these sizes; needs nms: soft_nms."
    )
    clip_boxes: bool = Field(True, description="To the image, before they are scored.")
    decimals: NonNegativeInt | None = Field(
        None, description="Of boxes and scores, before they are scored; CenterNet's results have 2."
    )

    @property
    def sees_whole_images(self) -> bool:
        """Whether images reach `detect` as they are, each of its own size, to be resized for each of the scales."""
        return self.nms == "soft_nms"
