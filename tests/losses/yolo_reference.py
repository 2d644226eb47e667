"""The YOLO loss once more, in float64 NumPy and plain loops: one truth, one cell, one anchor at a time.

Written from the description of the rules, not from the TensorFlow code, to be compared with it.
"""

import math

import numpy as np


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def cross_entropy(target, logit):
    return max(logit, 0) - logit * target + math.log1p(math.exp(-abs(logit)))


def decoded_box(raw, image, row, column, slot, anchor, scale, size):
    """cxcywh of one prediction. anchor: (width, height) in pixels, size: (height, width) in pixels."""
    rows, columns = raw.shape[1:3]
    x, y, w, h = raw[image, row, column, slot, :4]
    return (
        (column + sigmoid(x) * scale - (scale - 1) / 2) / columns,
        (row + sigmoid(y) * scale - (scale - 1) / 2) / rows,
        math.exp(w) * anchor[0] / size[1],
        math.exp(h) * anchor[1] / size[0],
    )


def edges(box):
    x, y, w, h = box
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def ious(a, b, frozen_a=None):
    """IoU, GIoU, DIoU, CIoU of two cxcywh boxes; CIoU's weight is that of `frozen_a` and b, if given."""
    (al, at, ar, ab), (bl, bt, br, bb) = edges(a), edges(b)
    shared = max(0, min(ar, br) - max(al, bl)) * max(0, min(ab, bb) - max(at, bt))
    union = a[2] * a[3] + b[2] * b[3] - shared
    iou = shared / union if union > 0 else 0.0
    hull_w, hull_h = max(ar, br) - min(al, bl), max(ab, bb) - min(at, bt)
    giou = iou - (hull_w * hull_h - union) / (hull_w * hull_h)
    diou = iou - ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / (hull_w**2 + hull_h**2)
    aspect = 4 / math.pi**2 * (math.atan2(b[2], b[3]) - math.atan2(a[2], a[3])) ** 2
    weight = aspect / (1 - iou + aspect + 1e-6) if frozen_a is None else ious(frozen_a, b)["weight"]
    return {"iou": iou, "giou": giou, "diou": diou, "ciou": diou - weight * aspect, "weight": weight}


def shape_iou(w, h, anchor, size):
    aw, ah = anchor[0] / size[1], anchor[1] / size[0]
    shared = min(w, aw) * min(h, ah)
    return shared / (w * h + aw * ah - shared)


def usable_truths(truth, image):
    boxes, classes, valid = truth
    for number in range(boxes.shape[1]):
        if valid[image, number] and boxes[image, number, 2] > 0 and boxes[image, number, 3] > 0:
            yield number, tuple(float(v) for v in boxes[image, number]), int(classes[image, number])


def assignment(raw, truth, head, level, rules, size):
    """({(image, row, column, slot): [(truth number, box, class)]}, {ignored (image, row, column, slot)})."""
    rows, columns, slots = raw.shape[1:4]
    positives, ignored = {}, set()
    for image in range(raw.shape[0]):
        for number, box, label in usable_truths(truth, image):
            row, column = min(int(box[1] * rows), rows - 1), min(int(box[0] * columns), columns - 1)
            overlaps = [shape_iou(box[2], box[3], anchor, size) for anchor in head.anchors]
            best = int(np.argmax(overlaps))
            for slot, index in enumerate(level.mask):
                if index == best or (rules.iou_thresh < 1 and overlaps[index] > rules.iou_thresh):
                    positives.setdefault((image, row, column, slot), []).append((number, box, label))
        for row in range(rows):
            for column in range(columns):
                for slot in range(slots):
                    where = (image, row, column, slot)
                    anchor = head.anchors[level.mask[slot]]
                    mine = decoded_box(raw, *where, anchor, level.scale_x_y, size)
                    best = max((ious(mine, box)["iou"] for _, box, _ in usable_truths(truth, image)), default=0)
                    confident = any(sigmoid(logit) > 0.25 for logit in raw[where][5:])
                    if where not in positives and best > rules.ignore_thresh and confident:
                        ignored.add(where)
    return positives, ignored


def level_losses(raw, assigned, head, level, rules, size, frozen_raw):
    """[box, objectness, class] of one level, summed over the batch, weighted. CIoU's weight is that of `frozen_raw`."""
    positives, ignored = assigned
    rows, columns = raw.shape[1:3]
    box_loss = objectness = class_loss = 0.0
    for where in np.ndindex(raw.shape[:4]):
        if where not in ignored:
            objectness += cross_entropy(float(where in positives), raw[where][4])
    for where, truths in positives.items():
        anchor = head.anchors[level.mask[where[3]]]
        mine = decoded_box(raw, *where, anchor, level.scale_x_y, size)
        frozen = decoded_box(frozen_raw, *where, anchor, level.scale_x_y, size)
        here = 0.0
        for _, box, _ in truths:
            if rules.iou_loss == "mse":
                x, y, w, h = box
                errors = (
                    (mine[0] - x) * columns,
                    (mine[1] - y) * rows,
                    raw[where][2] - math.log(w * size[1] / anchor[0]),
                    raw[where][3] - math.log(h * size[0] / anchor[1]),
                )
                here += (2 - w * h) * sum(error**2 for error in errors) / 2
            else:
                here += 1 - ious(mine, box, frozen)[rules.iou_loss]
        box_loss += here / len(truths) if rules.iou_thresh < 1 else here
        labels = {label for _, _, label in truths}
        for label, logit in enumerate(raw[where][5:]):
            smooth = (label in labels) * (1 - rules.label_smoothing) + rules.label_smoothing / 2
            class_loss += cross_entropy(smooth, logit)
    weights = [rules.iou_normalizer, rules.obj_normalizer, rules.cls_normalizer]
    return np.array([box_loss, objectness, class_loss]) * weights


def loss_parts(outputs, truth, head, rules, size):
    """[box, objectness, class], mean over the batch."""
    total = np.zeros(3)
    for raw, level in zip(outputs, head.levels, strict=True):
        assigned = assignment(raw, truth, head, level, rules, size)
        total += level_losses(raw, assigned, head, level, rules, size, raw)
    return total / outputs[0].shape[0]
