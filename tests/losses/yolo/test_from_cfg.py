import pytest

from configs.yolo.heads import DetectionHead, GaussianYoloHead, RegionHead, YoloHead
from configs.yolo.losses import DetectionLoss, GaussianYoloLoss, RegionLoss, YoloLoss
from losses.yolo.from_cfg import head_and_loss
from modeling.darknet.cfg import parse_cfg, read_cfg
from modeling.darknet.grammar import CfgError

NET = "[net]\nbatch=64\nsubdivisions=8\nwidth=64\nheight=48\nchannels=3\n"
ANCHORS = "anchors=10,14, 22,18, 40,30\nnum=3\nclasses=3\n"


def of_cfg(*sections: str):
    return head_and_loss(
        parse_cfg(NET + "".join(f"[convolutional]\nfilters=8\n{section}" for section in sections), "x.cfg")
    )


def test_defaults_are_darknets():
    head, loss = of_cfg(f"[yolo]\nmask=0,1\n{ANCHORS}")
    assert head == YoloHead(anchors=((10, 14), (22, 18), (40, 30)), levels=[{"mask": (0, 1)}])
    assert loss == YoloLoss(gradient="darknet", iou_normalizer=0.75, ignore_thresh=0.5)
    head, loss = of_cfg(f"[Gaussian_yolo]\nmask=2\n{ANCHORS}")
    assert head == GaussianYoloHead(anchors=((10, 14), (22, 18), (40, 30)), levels=[{"mask": (2,)}])
    assert loss == GaussianYoloLoss()
    head, loss = of_cfg("[region]\nanchors=1,2, 3,4\nnum=2\n")
    assert head == RegionHead(anchors=((1, 2), (3, 4)), softmax=False)
    assert loss == RegionLoss(prior_steps=199)  # 200 * 64 = 12800 examples are seen, no longer fewer
    head, loss = of_cfg("[detection]\ncoords=4\n")
    assert (head, loss) == (DetectionHead(), DetectionLoss())


def test_every_option_arrives():
    options = """scale_x_y=1.05\nnew_coords=1\niou_loss=ciou\niou_normalizer=.07\nobj_normalizer=.4\ncls_normalizer=.5
ignore_thresh=.7\ntruth_thresh=.9\niou_thresh=.213\niou_thresh_kind=giou\nobjectness_smooth=1\nmax_delta=5
counters_per_class=10,0,7\nlabel_smooth_eps=.1\nfocal_loss=1\nshow_details=0\n"""
    head, loss = of_cfg(f"[yolo]\nmask=0,1\n{ANCHORS}{options}")
    assert (head.levels[0].scale_x_y, head.levels[0].new_coords) == (1.05, True)
    assert loss == YoloLoss(
        gradient="darknet", iou_loss="ciou", iou_normalizer=0.07, obj_normalizer=0.4, cls_normalizer=0.5,
        ignore_thresh=0.7, truth_thresh=0.9, iou_thresh=0.213, iou_thresh_kind="giou", objectness_smooth=True,
        max_delta=5, counters_per_class=(10, 1, 7), label_smoothing=0.1, focal_loss=True, show_details=False,
    )  # fmt: skip
    _, loss = of_cfg(f"[Gaussian_yolo]\n{ANCHORS}uc_normalizer=.3\niou_loss=giou\nmax_delta=5\n")
    assert loss == GaussianYoloLoss(uc_normalizer=0.3, iou_loss="giou", max_delta=5)
    scales = "coord_scale=5\nobject_scale=2\nnoobject_scale=.5\nclass_scale=3\nrescore=1\n"
    values = {"coord_scale": 5, "object_scale": 2, "noobject_scale": 0.5, "class_scale": 3, "rescore": True}
    head, loss = of_cfg(f"[region]\nanchors=1,2\nsoftmax=1\nthresh=.6\nbias_match=1\n{scales}")
    assert loss == RegionLoss(thresh=0.6, bias_match=True, prior_steps=199, **values)
    assert head == RegionHead(anchors=((1, 2),), softmax=True)
    head, loss = of_cfg(f"[detection]\ncoords=4\nside=5\nnum=3\nsqrt=1\nsoftmax=1\n{scales}")
    assert head == DetectionHead(side=5, num=3, sqrt=True, softmax=True)
    assert loss == DetectionLoss(**values)


def test_levels_that_differ_have_their_own():
    same, other = f"[yolo]\nmask=2\n{ANCHORS}", f"[yolo]\nmask=0\n{ANCHORS.replace('10,14', '9,9')}obj_normalizer=.4\n"
    head, _ = of_cfg(same, other, same)
    assert [level.anchors for level in head.levels] == [None, ((9, 9), (22, 18), (40, 30)), None]
    own = [level.loss for level in head.levels]
    assert own == [None, YoloLoss(gradient="darknet", obj_normalizer=0.4), None]
    assert head.anchors_of(head.levels[1]) == ((9, 9),)
    assert YoloHead.model_validate(head.model_dump(mode="json")) == head


def test_thresholds_above_one_are_never_reached():
    _, loss = of_cfg(f"[yolo]\n{ANCHORS}ignore_thresh=1.5\ntruth_thresh=2\niou_thresh=3\n")
    assert (loss.ignore_thresh, loss.truth_thresh, loss.iou_thresh) == (1, 1, 1)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ([""], r"x.cfg: has no section that detects; expected \[yolo\]"),
        (
            [f"[yolo]\n{ANCHORS}", "[region]\nanchors=1,1\n"],
            r"x.cfg:\d+: \[region\] \(layer 3\): heads of several kinds",
        ),
        ([f"[yolo]\n{ANCHORS}", f"[yolo]\n{ANCHORS.replace('=3', '=4')}"], r"classes=4; expected layer 1's 3"),
        (["[region]\nanchors=1,1\n"] * 2, r"a second \[region\]; expected one"),
        (["[region]\nanchors=1,1\ncoords=5\n"], "coords=5; expected 4"),
        (["[detection]\nside=7\n"], "coords=1; expected 4"),
        (["[region]\nanchors=1,1\ntree=data/9k.tree\n"], r"tree=data/9k.tree: a hierarchy of classes"),
        ([f"[yolo]\n{ANCHORS}scale_x_y=0\n"], r"layer 1\): scale_x_y: .* greater than 0; got 0"),
        ([f"[yolo]\n{ANCHORS}iou_normalizer=-1\n"], r"iou_normalizer: .* greater than or equal to 0; got -1"),
        ([f"[yolo]\n{ANCHORS}mask=1,1\n"], r"levels\[0\].mask \[1, 1\] names an anchor twice"),
        ([f"[yolo]\n{ANCHORS}label_smooth_eps=1\n"], r"label_smoothing: .* less than 1; got 1"),
    ],
)
def test_what_is_no_loss_is_one_clear_error(sections, message):
    with pytest.raises(CfgError, match=message) as raised:
        of_cfg(*sections)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_every_published_detector(shared):
    """All 68, but for YOLO9000's hierarchy of classes."""
    count = 0
    for path in sorted((shared / "assets/darknet/cfg").rglob("*.cfg")):
        if not any(f"[{name}]" in path.read_text() for name in ("yolo", "Gaussian_yolo", "region", "detection")):
            continue
        network = read_cfg(str(path))
        count += 1
        if path.stem == "yolo9000":
            with pytest.raises(CfgError, match="hierarchy"):
                head_and_loss(network)
            continue
        head, loss = head_and_loss(network)
        assert head.type == loss.type
    assert count == 68
