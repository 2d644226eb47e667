"""What the words of heads and losses allow."""

import pydantic
import pytest

from configs.backbones import ElanBackbone
from configs.decoders import ConvolutionsBlock, ElanBlock
from configs.yolo.heads import GaussianYoloHead, YoloHead
from configs.yolo.losses import ONLY_DARKNET, YoloLoss

ANCHORS = ((10, 14), (22, 18), (40, 30))
DARKNETS = {
    "truth_thresh": 0.9,
    "max_delta": 5,
    "counters_per_class": (1, 2),
    "objectness_smooth": True,
    "focal_loss": True,
    "show_details": False,
}


@pytest.mark.parametrize("option", ONLY_DARKNET)
def test_what_only_darknet_has_is_refused_for_autodiff(option):
    YoloLoss(gradient="darknet", **{option: DARKNETS[option]})
    with pytest.raises(pydantic.ValidationError, match=f"{option}: no meaning with gradient: autodiff; set"):
        YoloLoss(**{option: DARKNETS[option]})


@pytest.mark.parametrize("head", [YoloHead, GaussianYoloHead])
def test_masks_name_anchors_of_their_table_once(head):
    with pytest.raises(
        pydantic.ValidationError, match=r"levels\[1\].mask names anchors \[3\], but there are 3 anchors"
    ):
        head(anchors=ANCHORS, levels=[{"mask": (0, 1)}, {"mask": (2, 3)}])
    with pytest.raises(
        pydantic.ValidationError, match=r"levels\[0\].mask names anchors \[1\], but there are 1 anchors"
    ):
        head(anchors=ANCHORS, levels=[{"mask": (0, 1), "anchors": [(5, 5)]}])
    with pytest.raises(pydantic.ValidationError, match=r"levels\[0\].mask \[2, 2\] names an anchor twice"):
        head(anchors=ANCHORS, levels=[{"mask": (2, 2)}])


def test_a_level_may_have_its_own_anchors():
    head = YoloHead(anchors=ANCHORS, levels=[{"mask": (2, 0)}, {"mask": (1,), "anchors": [(5, 6), (7, 8)]}])
    assert [head.anchors_of(level) for level in head.levels] == [((40, 30), (10, 14)), ((7, 8),)]
    assert head.table(head.levels[1]) == ((5, 6), (7, 8))


ELAN = {
    "stem": ((32, 2), (64, 2)),
    "stages": ((32, 64), (64, 128), (128, 256), (256, 512)),
    "join": (0, 2),
    "down": "pool",
}


@pytest.mark.parametrize("join", [(0, 1), (2, 2)])
def test_what_an_elan_block_joins_has_a_3x3_convolution_and_nothing_twice(join):
    ElanBlock(join=(3, 0))
    with pytest.raises(pydantic.ValidationError, match="expected different outputs, one of a 3x3 convolution"):
        ElanBlock(join=join)


@pytest.mark.parametrize("stem", [((32, 2),), ((32, 2), (64, 2), (64, 2))])
def test_the_stem_of_elan_reaches_stride_4(stem):
    ElanBackbone(**ELAN)
    with pytest.raises(pydantic.ValidationError, match="expected two of 2, which reach stride 4"):
        ElanBackbone(**ELAN | {"stem": stem})


def test_windows_of_pools_have_a_middle():
    with pytest.raises(pydantic.ValidationError, match=r"\[4, 1\]: expected odd windows"):
        ConvolutionsBlock(layers=(1, "spp"), spp=(4, 1))
