"""What the words of CenterNet's task allow, and that the two families keep theirs apart."""

import pydantic
import pytest

from configs.centernet.task import CenterNetProtocol, CenterNetTask
from configs.yolo.task import YoloTask

DATA = {
    "classes": ["a"],
    "train": {"source": {"type": "voc", "root": "r", "split": "s"}, "batch_size": 2},
    "validation": {"source": {"type": "voc", "root": "r", "split": "s"}, "batch_size": 1},
}
MODEL = {"input_size": [64, 96], "backbone": {"type": "resnet"}, "decoder": {"type": "deconv"}}
YOLO = {
    "input_size": [64, 96],
    "backbone": {"type": "yolov4_tiny"},
    "head": {"anchors": [[9, 9]], "levels": [{"mask": [0]}]},
}


def changed(split: str, **changes) -> dict:
    return {**DATA, split: DATA[split] | changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": changed("train", augmentation={"type": "darknet"})}, "Input should be 'centernet'"),
        ({"data": changed("train", augmentation={"jitter": 0.3})}, "jitter\n  Extra inputs are not permitted"),
        ({"data": changed("train", multi_scale={})}, "CenterNet trains at one size"),
        (
            {"data": changed("validation", batch_size=2), "evaluation": {"resize": "keep"}},
            "batch_size is 2; expected 1",
        ),
        ({"data": changed("validation", batch_size=2), "evaluation": {"nms": "soft_nms"}}, "expected 1"),
        ({"evaluation": {"resize": "keep", "keep_multiple": 16}}, "keep_multiple is 16; expected a multiple of 32"),
        ({"evaluation": {"keep_multiple": 96}}, "must be a power of 2, got 96"),
        ({"evaluation": {"scales": [0.5, 1]}}, "merged by nms: soft_nms, but nms is none"),
        ({"evaluation": {"resize": "stretch"}}, "'affine' or 'keep'"),
        ({"evaluation": {"nms": "per_class_iou"}}, "'none' or 'soft_nms'"),
        ({"loss": {"dense_wh": True}, "model": MODEL | {"head": {"cat_spec_wh": True}}}, "dense_wh asks for one"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    CenterNetTask(model=MODEL, data=DATA)
    with pytest.raises(pydantic.ValidationError, match=message):
        CenterNetTask(**{"model": MODEL, "data": DATA} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluation": {"resize": "affine"}}, "'stretch' or 'letterbox'"),
        ({"evaluation": {"nms": "none"}}, "'per_class_iou', 'greedynms' or 'diounms'"),
        ({"evaluation": {"flip_test": True}}, "evaluation.flip_test\n  Extra inputs are not permitted"),
        ({"evaluation": {"scales": [1, 2]}}, "evaluation.scales\n  Extra inputs are not permitted"),
        ({"evaluation": {"decimals": 2}}, "evaluation.decimals\n  Extra inputs are not permitted"),
        (
            {"data": changed("train", augmentation={"type": "centernet"})},
            "'centernet' .* expected .*'darknet', 'affine'",
        ),
    ],
)
def test_yolo_refuses_what_is_centernets(change, message):
    YoloTask(model=YOLO, data=DATA)
    with pytest.raises(pydantic.ValidationError, match=message):
        YoloTask(**{"model": YOLO, "data": DATA} | change)


def test_its_protocol_is_the_originals():
    protocol = CenterNetProtocol()
    assert (protocol.nms, protocol.score_floor, protocol.decimals, protocol.clip_boxes) == ("none", 0.0, 2, False)
    assert protocol.padding_value == 0 and not protocol.flip_test and not protocol.sees_whole_images
    assert protocol.rounded(0.12345) == 0.12 and CenterNetProtocol(decimals=None).rounded(0.12345) == 0.12345
