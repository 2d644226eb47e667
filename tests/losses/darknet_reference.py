"""Darknet's gradient of [yolo] and [Gaussian_yolo] once more: NumPy and plain loops, one truth after the other.

Written from the description of what Darknet computes, not from the TensorFlow code, to be compared with it. In float64,
from probabilities in float32, which is where they become exactly 0 or 1.
"""

import math

import numpy as np


def sigmoid(logits):
    with np.errstate(over="ignore"):
        return np.float32(1) / (np.float32(1) + np.exp(-logits.astype(np.float32)))


def edges(box):
    x, y, w, h = box
    return y - h / 2, y + h / 2, x - w / 2, x + w / 2


def iou_of(a, b):
    (at, ab, al, ar), (bt, bb, bl, br) = edges(a), edges(b)
    width, height = min(ar, br) - max(al, bl), min(ab, bb) - max(at, bt)
    shared = 0.0 if width < 0 or height < 0 else width * height
    union = a[2] * a[3] + b[2] * b[3] - shared
    return shared / union if shared and union else 0.0


def hull(a, b):
    (at, ab, al, ar), (bt, bb, bl, br) = edges(a), edges(b)
    return max(ar, br) - min(al, bl), max(ab, bb) - min(at, bt)


def kind_of_iou(a, b, kind):
    overlap, (width, height) = iou_of(a, b), hull(a, b)
    apart = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
    if kind == "giou":
        union = a[2] * a[3] + b[2] * b[3]
        union -= union * overlap / (1 + overlap)  # shared = overlap * (sum of areas) / (1 + overlap)
        return overlap - (width * height - union) / (width * height)
    if kind == "diou":
        return overlap - (apart / (width**2 + height**2)) ** 0.6
    if kind == "ciou":
        aspect = 4 / math.pi**2 * (math.atan(a[2] / a[3]) - math.atan(b[2] / b[3])) ** 2
        return overlap - apart / (width**2 + height**2) - aspect**2 / (1 - overlap + aspect + 1e-6)
    return overlap


def iou_slopes(pred, true, kind):
    """By x, y and, twice, by width and height; with all that is odd about them."""
    (pt, pb, pl, pr), (tt, tb, tl, tr) = edges(pred), edges(true)
    iw, ih = min(pr, tr) - max(pl, tl), min(pb, tb) - max(pt, tt)
    shared = iw * ih
    union = pred[2] * pred[3] + true[2] * true[3] - shared
    cw, ch = hull(pred, true)
    by_edge = {}
    for name, area, inside, overlap, outside, span in (
        ("t", -pred[2], pt > tt, -iw, pt < tt, -cw),
        ("b", pred[2], pb < tb, iw, pb > tb, cw),
        ("l", -pred[3], pl > tl, -ih, pl < tl, -ch),
        ("r", pred[3], pr < tr, ih, pr > tr, ch),
    ):
        of_shared = overlap if inside else 0.0
        of_union = area - of_shared
        slope = (union * of_shared - shared * of_union) / union**2 if union > 0 else 0.0
        if kind == "giou":
            of_hull = span if outside else 0.0
            term = (cw * ch * of_union - union * of_hull) / (cw * ch) ** 2
            slope = term if iw <= 0 or ih <= 0 else slope + term
        by_edge[name] = slope
    slopes = [by_edge["l"] + by_edge["r"], by_edge["t"] + by_edge["b"]]
    slopes += [by_edge["r"] - by_edge["l"], by_edge["b"] - by_edge["t"]]
    if kind not in ("diou", "ciou"):
        return np.array(slopes)
    apart, diagonal = (pred[0] - true[0]) ** 2 + (pred[1] - true[1]) ** 2, cw**2 + ch**2
    right, left, bottom, top = (float(flag) for flag in (pr > tr, pl < tl, pb > tb, pt < tt))
    terms = [
        (2 * (true[0] - pred[0]) * diagonal - 2 * cw * (right - left) * apart) / diagonal**2,
        (2 * (true[1] - pred[1]) * diagonal - 2 * ch * (bottom - top) * apart) / diagonal**2,
        cw * (right + left) * apart / diagonal**2,
        ch * (bottom + top) * apart / diagonal**2,
    ]
    if kind == "ciou":
        angle = math.atan(true[2] / true[3]) - math.atan(pred[2] / pred[3])
        aspect = 4 / math.pi**2 * angle**2
        factor = aspect / (1 - shared / union + aspect + 1e-6) * 8 / math.pi**2 * angle
        terms[2] += factor * pred[3]
        terms[3] -= factor * pred[2]
    return np.array(terms) if iw <= 0 or ih <= 0 else np.array(slopes) + terms


class Level:
    """One level for one image. raw: [rows, columns, anchors, channels]; table: relative (width, height)."""

    def __init__(self, raw, truths, table, mask, rules, *, scale_x_y=1.0, new_coords=False, gaussian=False):
        self.truths, self.table, self.mask, self.rules = truths, table, mask, rules
        self.gaussian, self.new_coords = gaussian, new_coords
        self.boxes_end = 8 if gaussian else 4
        self.out = raw.astype(np.float64)
        activated = [0, 1, 2, 3, 5, 7, *range(8, raw.shape[-1])] if gaussian else [0, 1, *range(4, raw.shape[-1])]
        if not new_coords:
            self.out[..., activated] = sigmoid(raw[..., activated])
        places = [0, 2] if gaussian else [0, 1]
        self.out[..., places] = self.out[..., places] * scale_x_y - (scale_x_y - 1) / 2
        self.means = [0, 2, 4, 6] if gaussian else [0, 1, 2, 3]
        self.delta = np.zeros_like(self.out)
        counters = rules.counters_per_class
        most = rules.max_delta or math.inf
        self.weights = [min(max(counters) / count, most) for count in counters] if counters else None

    def run(self):
        for where in np.ndindex(self.out.shape[:3]):
            self.background(where)
        for box, label in self.truths:
            self.ask(box, label)
        for where in np.ndindex(self.out.shape[:3]):
            self.average(where)
        return self.delta

    def weight(self, label):
        return self.weights[label] if self.weights else 1.0

    def box_at(self, where):
        row, column, slot = where
        x, y, w, h = self.out[where][self.means]
        factors = (4 * w * w, 4 * h * h) if self.new_coords else (math.exp(w), math.exp(h))
        anchor = self.table[self.mask[slot]]
        rows, columns = self.out.shape[:2]
        return (column + x) / columns, (row + y) / rows, factors[0] * anchor[0], factors[1] * anchor[1]

    def background(self, where):
        rules, end = self.rules, self.boxes_end
        objectness = self.out[where][end]
        overlaps = [iou_of(self.box_at(where), box) for box, _ in self.truths]
        best = max(overlaps, default=0.0)
        match = best if np.any(self.out[where][end + 1 :] > 0.25) else 0.0
        smooth = getattr(rules, "objectness_smooth", False)
        delta = -rules.obj_normalizer * objectness
        if match > rules.ignore_thresh:
            delta = max(delta, rules.obj_normalizer * (match - objectness)) if smooth else 0.0
        self.delta[where][end] = delta
        if best > rules.truth_thresh:
            box, label = self.truths[int(np.argmax(overlaps))]
            aim = best**2 if smooth else 1.0
            self.delta[where][end] = rules.obj_normalizer * (aim - objectness)
            self.teach_class(where, label)
            if smooth:
                self.delta[where][end + 1 + label] = self.weight(label) * (aim - self.out[where][end + 1 + label])
            self.delta[where][:end] += self.box_delta(where, box, self.weight(label))

    def ask(self, box, label):
        rules, (rows, columns) = self.rules, self.out.shape[:2]
        cell = min(int(box[1] * rows), rows - 1), min(int(box[0] * columns), columns - 1)
        shapes = [(0.0, 0.0, *anchor) for anchor in self.table]
        best = int(np.argmax([iou_of(shape, (0, 0, *box[2:])) for shape in shapes]))
        for number in [best, *(n for n in range(len(shapes)) if n != best)]:
            if number not in self.mask:
                continue
            alike = kind_of_iou(shapes[number], (0, 0, *box[2:]), rules.iou_thresh_kind)
            if number == best or (rules.iou_thresh < 1 and alike > rules.iou_thresh):
                self.teach((*cell, self.mask.index(number)), box, label)

    def teach(self, where, box, label):
        end, weight = self.boxes_end, self.weight(label)
        self.delta[where][:end] += self.box_delta(where, box, weight)
        asked = weight * self.rules.obj_normalizer * (1 - self.out[where][end])
        if not getattr(self.rules, "objectness_smooth", False) or self.delta[where][end] == 0:
            self.delta[where][end] = asked
        self.teach_class(where, label)

    def teach_class(self, where, label):
        rules, start = self.rules, self.boxes_end + 1
        delta, out = self.delta[where][start:], self.out[where][start:]
        high, low = 1 - rules.label_smoothing / 2, rules.label_smoothing / 2
        if delta[0 if self.gaussian else label] != 0:
            delta[label] = (high - out[label]) * self.weight(label)
            return
        for n in range(len(out)):
            delta[n] = (high if n == label else low) - out[n]
        if self.weights:
            delta[label] *= self.weight(label) * rules.cls_normalizer
        if getattr(rules, "focal_loss", False):
            chance = float(np.float32(out[label]) + np.float32(1e-15))
            slope = -(1 - chance) * (2 * chance * math.log(chance) + chance - 1)
            for n in range(len(out)):
                delta[n] = ((n == label) - out[n]) * 0.5 * slope

    def box_delta(self, where, box, weight):
        rules, (row, column, slot) = self.rules, where
        rows, columns = self.out.shape[:2]
        anchor, out = self.table[self.mask[slot]], self.out[where]
        factors = box[2] / anchor[0], box[3] / anchor[1]
        sizes = [math.sqrt(f / 4) if self.new_coords else math.log(f) for f in factors]
        errors = np.array([box[0] * columns - column, box[1] * rows - row, *sizes]) - out[self.means]
        scale = 2 - box[2] * box[3]
        means = scale * errors
        if self.gaussian:
            sigmas = out[[1, 3, 5, 7]]
            z = errors / sigmas
            density = np.exp(-z * z / 2) / (math.sqrt(2 * math.pi) * (sigmas + 0.3))
            factor = scale / 2 * density / (density + 1e-9)
            means = factor * z / sigmas
            uncertainties = factor * (z * z / sigmas - 1 / (sigmas + 0.3)) * rules.uc_normalizer
        if rules.iou_loss != "mse":
            means = iou_slopes(self.box_at(where), box, rules.iou_loss)
            if not self.new_coords:
                means[2:] *= np.exp(out[self.means[2:]])
        means = means * rules.iou_normalizer * weight
        if self.gaussian:
            means = np.stack([means, uncertainties], axis=-1).ravel()
        if rules.max_delta and (self.gaussian or rules.iou_loss != "mse"):
            means = np.clip(means, -rules.max_delta, rules.max_delta)
        return means

    def average(self, where):
        end = self.boxes_end
        if self.gaussian or (self.rules.iou_thresh < 1 and self.delta[where][end] != 0):
            self.delta[where][:end] /= max(1, np.count_nonzero(self.delta[where][end + 1 :] > 0))
