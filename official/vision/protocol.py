"""The evaluation protocol: what is done to an image and to its detections before they are scored."""

from pydantic import Field, PositiveFloat, PositiveInt

from official.core.config import Config


class EvaluationProtocol(Config):
    """How detections are made and scored. Stored beside every number, and embedded in every export.

    `resize`, `interpolation` and `nms` name a rule of the tables in resize.py, interpolation.py and nms.py. A family's
    own protocol derives from this one: it says which of the rules the family takes, and adds words of its own.
    """

    resize: str = Field("letterbox", description="Where the network's input shows the image; of RESIZES.")
    keep_multiple: PositiveInt = Field(32, description="Of resize: keep alone. A power of 2.")
    interpolation: str = Field("bilinear", description="How pixels are made when the image is resized.")
    padding_value: float = Field(
        127.5, ge=0, le=255, description="Level around a letterboxed image (Darknet: 0.5); rounded with its pixels."
    )
    score_floor: float = Field(0.001, ge=0, lt=1)
    nms: str = Field("per_class_iou", description="What suppresses a box, and by what; of NMS.")
    nms_threshold: float = Field(0.45, gt=0, le=1)
    beta_nms: PositiveFloat = Field(0.6, description="Of diounms alone.")
    candidates: PositiveInt = Field(1000, description="The best (box, class) pairs of an image that enter NMS.")
    detections_per_image: PositiveInt = 100
    clip_boxes: bool = Field(True, description="To the image, before they are scored.")

    @property
    def sees_whole_images(self) -> bool:
        """Whether images reach the task's `detect` as they are, each of its own size, to be resized there."""
        return False

    @property
    def not_exportable(self) -> str | None:
        """Why no export can detect by this protocol, and what to change; None: one can."""
        return None

    def rounded(self, number: float) -> float:
        """A coordinate in pixels, or a score, as it is scored."""
        return number
