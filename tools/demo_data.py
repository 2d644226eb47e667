"""The embedded data set: six classes told apart by shape and texture, drawn on the spot, the same bytes on every run.

`python -m tools.demo_data --output DIR` writes DIR/{train,val}/*.jpg and DIR/instances_{train,val}.json (COCO).
"""

import argparse
import functools
import itertools
import json
import math
import multiprocessing
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8
from PIL import Image, ImageDraw, ImageFilter

from official.core.errors import UserError, one_line_errors

IMAGE_SIZES = ((240, 320), (320, 240), (240, 288), (304, 256), (272, 336))  # (height, width): landscape and portrait
SMALLEST, LARGEST = 0.08, 0.5  # either side of a box, relative to the short side of the image
MOST_OBJECTS = 8
EMPTY_SHARE, HIDDEN_SHARE = 0.03, 0.5  # of images, without an object; of an object, the most that later ones cover
FINER = 2  # everything is drawn on a grid this much finer: boxes are exact there, edges smooth in the image
SPLITS = ("train", "val")  # the position is part of the seed
MARKER = "synthetic.json"  # says what was asked for; no other data set has this file

Mask = Bool[np.ndarray, "h w"]
Grid = Float32[np.ndarray, "h w"]  # coordinates in the object's own frame: x right, y down, the object within -1..1
Sizes = tuple[tuple[int, int], ...]  # (height, width)


def star(x: Grid, y: Grid) -> Mask:
    """A point is inside a pentagram when it is on the inner side of four of the five lines."""
    turns = 2 * math.pi / 5 * np.arange(5, dtype=np.float32)[:, None, None]
    return (x * np.sin(turns) - y * np.cos(turns) < 0.33).sum(0) >= 4  # [5, h, w] -> [h, w]


class Kind(NamedTuple):
    category_id: int  # with gaps, as COCO's own
    shape: Callable[[Grid, Grid], Mask]  # True inside
    texture: Callable[[Grid, Grid], Grid | Mask]  # 0 is the first colour, 1 the second; coarse: 19 pixels must show it


KINDS = {
    "target": Kind(3, lambda x, y: np.hypot(x, y) < 1, lambda x, y: np.hypot(x, y) * 2.5 % 1 < 0.5),  # rings
    "flag": Kind(7, lambda x, y: np.maximum(abs(x), abs(y)) < 0.9, lambda x, y: y * 2.2 % 1 < 0.5),  # striped square
    "tent": Kind(
        11,
        lambda x, y: (y < 0.8) & (abs(x) < 0.6 * (y + 1)),  # a triangle with checks
        lambda x, y: (x * 1.25 % 1 < 0.5) ^ (y * 1.25 % 1 < 0.5),
    ),
    "cross": Kind(
        18, lambda x, y: (np.minimum(abs(x), abs(y)) < 0.32) & (np.maximum(abs(x), abs(y)) < 1), lambda x, y: x * 0
    ),  # of one colour
    "star": Kind(22, star, lambda x, y: np.hypot(x * 2.2 % 1 - 0.5, y * 2.2 % 1 - 0.5) < 0.33),  # with dots
    "moon": Kind(
        41, lambda x, y: (np.hypot(x, y) < 1) & (np.hypot(x - 0.6, y) > 0.75), lambda x, y: np.clip(y / 2 + 0.5, 0, 1)
    ),  # a crescent, one colour fading into the other
}


class Scene(NamedTuple):
    image: UInt8[np.ndarray, "h w 3"]
    annotations: list[dict]  # COCO's, without ids: category_id, bbox (x, y, width, height in pixels), area, iscrowd
    owner: Int32[np.ndarray, "2*h 2*w"]  # per cell of the fine grid; 0: background, n: the n-th annotation is seen


def draw_background(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Colour gradients, low-frequency noise and stripes on the fine grid; height and width in pixels."""

    def noise(rows: int, columns: int, channels: int) -> Float32[np.ndarray, "h w c"]:
        cells = rng.integers(256, size=(rows, columns, channels), dtype=np.uint8).squeeze()
        smooth = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(smooth, np.float32).reshape(height, width, channels) - 127.5

    rows, columns = np.ogrid[:height, :width]  # [height, 1], [1, width]
    angle, frequency, phase = rng.uniform(0, math.pi), 2 * math.pi / rng.uniform(5, 40), rng.uniform(0, 2 * math.pi)
    waves = np.sin((rows * math.sin(angle) + columns * math.cos(angle)) * frequency + phase, dtype=np.float32)
    colour = rng.uniform((50, -20), (205, 20), size=(3, 2)).astype(np.float32)
    colour = colour[:, 0] + colour[:, 1] * waves[..., None]  # [height, width, 3]
    colour += rng.uniform(0.1, 0.5) * noise(3, 4, 3) + rng.uniform(0, 0.25) * noise(20, 26, 1)
    picture = Image.fromarray(colour.clip(0, 255).astype(np.uint8))
    return picture.resize((FINER * width, FINER * height), Image.Resampling.NEAREST)


def add_distractors(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Adds lines, ellipse outlines, ragged blobs and rows of scribble, which are of no class, to a picture."""
    draw = ImageDraw.Draw(picture)
    for form in rng.integers(4, size=rng.integers(3, 10)):
        colour, thickness = tuple(rng.integers(256, size=3).tolist()), int(rng.integers(2, 7))
        centre, reach = rng.uniform((0, 0), picture.size), rng.uniform(0.04, 0.2) * min(picture.size)
        if form == 0:
            draw.line([*centre, *rng.uniform((0, 0), picture.size)], colour, thickness)
        elif form == 1:
            half = reach * np.array([1, rng.uniform(0.3, 0.8)])
            draw.ellipse([*(centre - half), *(centre + half)], outline=colour, width=thickness)
        elif form == 2:
            turns, radii = np.arange(11) * (2 * math.pi / 11), reach * rng.uniform(0.6, 1, size=11)
            corners = centre + np.stack([np.cos(turns), np.sin(turns)], axis=1) * radii[:, None]  # [11, 2]
            draw.polygon(corners.ravel().tolist(), colour)
        else:
            for letter in range(rng.integers(3, 10)):
                strokes = centre + np.array([18 * letter, 0]) + rng.uniform((0, 0), (14, 22), size=(4, 2))
                draw.line(strokes.ravel().tolist(), colour, 3)
    return picture


def draw_object(rng: np.random.Generator, kind: Kind, short_side: int) -> tuple[Mask, Grid]:
    """Mask and texture of one object on the fine grid, cut to the mask; `short_side` in cells of that grid."""
    while True:
        half, shift = rng.uniform(SMALLEST, LARGEST) * short_side / 2, rng.uniform()
        angle, stretch = math.radians(rng.uniform(-20, 20)), rng.uniform(0.87, 1.15)
        cells = (np.arange(-1.6 * half, 1.6 * half, dtype=np.float32) + shift) / half
        columns, rows = np.meshgrid(cells, cells)  # [cells, cells] each
        x = (columns * math.cos(angle) + rows * math.sin(angle)) * stretch
        y = (rows * math.cos(angle) - columns * math.sin(angle)) / stretch
        mask = kind.shape(x, y)
        down, across = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        cut = slice(down[0], down[-1] + 1), slice(across[0], across[-1] + 1)
        if SMALLEST * short_side <= min(mask[cut].shape) and max(mask[cut].shape) <= LARGEST * short_side:
            return mask[cut], kind.texture(x[cut], y[cut]).astype(np.float32)


def place(
    rng: np.random.Generator, mask: Mask, owner: Int32[np.ndarray, "rows columns"], areas: list[int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Slices of `owner` and of the mask where both meet, at most a quarter of a side outside; None: no place found."""
    shape, space = np.array(mask.shape), np.array(owner.shape)
    seen = np.bincount(owner.ravel(), minlength=len(areas) + 1)  # [1 + objects] cells
    for _ in range(20):
        start = rng.integers(-(shape // 4), space - shape + shape // 4 + 1)
        first, end = np.maximum(start, 0), np.minimum(start + shape, space)
        spot, part = (tuple(slice(*ends) for ends in zip(first - move, end - move, strict=True)) for move in (0, start))
        left = seen - np.bincount(owner[spot][mask[part]], minlength=len(seen))
        sides = mask[part].any(1).sum(), mask[part].any(0).sum()  # the cut can make an object narrower, too
        if min(sides) >= SMALLEST * min(space) and np.all(left[1:] >= (1 - HIDDEN_SHARE) * np.array(areas)):
            return spot, part
    return None


def draw_colours(rng: np.random.Generator, behind: Float32[np.ndarray, "3"]) -> Float32[np.ndarray, "2 3"]:
    """Two RGB colours (0..255) that stand out from each other and from what is behind; the same law for all classes."""
    while True:
        colours = rng.uniform(0, 255, size=(2, 3)).astype(np.float32)
        if min(abs(one - other).mean() for one, other in itertools.combinations([*colours, behind], 2)) > 50:
            return colours


def draw_scene(rng: np.random.Generator, image_sizes: Sizes = IMAGE_SIZES) -> Scene:
    """One image of one of the sizes with 0 to 8 objects; a box is that of the whole object, cut at the image."""
    height, width = image_sizes[rng.integers(len(image_sizes))]
    canvas = np.array(add_distractors(rng, draw_background(rng, height, width)))
    owner, annotations, areas = np.zeros(canvas.shape[:2], np.int32), [], []  # areas: cells, covered ones included
    for _ in range(0 if rng.uniform() < EMPTY_SHARE else rng.integers(1, MOST_OBJECTS + 1)):
        kind = list(KINDS.values())[rng.integers(len(KINDS))]
        mask, texture = draw_object(rng, kind, min(owner.shape))
        if (placed := place(rng, mask, owner, areas)) is None:
            continue
        spot, mask, texture = placed[0], mask[placed[1]], texture[placed[1]]
        first, second = draw_colours(rng, canvas[spot][mask].mean(0, dtype=np.float32))
        canvas[spot][mask] = first + texture[mask][:, None] * (second - first)
        areas.append(int(mask.sum()))
        owner[spot][mask] = len(areas)
        down, across = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))  # what is left after the cut
        box = [spot[1].start + across[0], spot[0].start + down[0], np.ptp(across) + 1, np.ptp(down) + 1]
        numbers = {"bbox": [float(edge) / FINER for edge in box], "area": areas[-1] / FINER**2, "iscrowd": 0}
        annotations.append({"category_id": kind.category_id, **numbers})
    picture = Image.fromarray(canvas).reduce(FINER).filter(ImageFilter.BoxBlur(rng.uniform(0, 0.8)))
    noise = rng.standard_normal((height, width, 3), dtype=np.float32) * rng.uniform(0, 10)
    return Scene((np.asarray(picture) + noise).round().clip(0, 255).astype(np.uint8), annotations, owner)


def write_image(folder: Path, seed: tuple[int, int], image_sizes: Sizes, number: int) -> tuple[dict, list[dict]]:
    """Write one image, decided by (`seed`, `number`) alone; returns COCO's image and annotations, those without ids."""
    rng = np.random.default_rng([*seed, number])
    pixels, annotations, _ = draw_scene(rng, image_sizes)
    image = {"id": number, "file_name": f"{number:06d}.jpg", "height": pixels.shape[0], "width": pixels.shape[1]}
    Image.fromarray(pixels).save(folder / image["file_name"], quality=int(rng.integers(30, 91)))
    return image, [{"image_id": number, **annotation} for annotation in annotations]


def write_split(pool: ProcessPoolExecutor, folder: Path, seed: tuple[int, int], image_sizes: Sizes, count: int) -> None:
    """Write `count` images to `folder` and their COCO JSON next to it."""
    folder.mkdir(parents=True)
    made = pool.map(functools.partial(write_image, folder, seed, image_sizes), range(1, count + 1), chunksize=8)
    images, annotations = zip(*made, strict=True)
    content = {
        "info": {"description": "synthetic shapes"},
        "categories": [{"id": kind.category_id, "name": name} for name, kind in KINDS.items()],
        "images": images,
        "annotations": [{"id": number, **one} for number, one in enumerate(itertools.chain(*annotations), 1)],
    }
    folder.with_name(f"instances_{folder.name}.json").write_text(json.dumps(content))


def is_complete(directory: Path, request: dict) -> bool:
    """True if `directory` holds what `request` says, False if absent or empty; an error if it is anything else."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    advice = "remove it or name another folder"
    marker = directory / MARKER
    found = f"synthetic images {marker.read_text()}" if marker.is_file() else f"something else (it has no {MARKER})"
    if found != (asked := f"synthetic images {json.dumps(request)}"):
        raise UserError(f"{directory} should hold {asked}, but it holds {found}: {advice}")
    wanted = [f"instances_{split}.json" for split in SPLITS]
    wanted += [f"{split}/{number:06d}.jpg" for split in SPLITS for number in range(1, request[split] + 1)]
    if missing := [name for name in wanted if not (directory / name).is_file()]:
        raise UserError(f"{directory} lacks {len(missing)} of its {len(wanted)} files ({missing[0]}): {advice}")
    return True


def write_synthetic(
    directory: str | Path,
    images_train: int = 600,
    images_val: int = 100,
    image_sizes: Sizes = IMAGE_SIZES,
    seed: int = 0,
    workers: int | None = None,
) -> bool:
    """Write the data set, whole or not at all; False if it is there already. `workers` (processes) change no byte.

    UserError: the folder holds something else, or it lost files.
    """
    if min(images_train, images_val) < 1:
        raise UserError(f"each split needs at least one image, not {images_train} (train) and {images_val} (val)")
    directory = Path(directory).absolute()
    request = {"train": images_train, "val": images_val, "sizes": [list(size) for size in image_sizes], "seed": seed}
    if is_complete(directory, request):
        return False
    partial = directory.with_name(f".{directory.name}.partial-{os.getpid()}")
    spawn = multiprocessing.get_context("spawn")  # forking a process in which TensorFlow's threads run can hang
    try:
        with ProcessPoolExecutor(workers or min(os.cpu_count() or 1, 8), spawn) as pool:
            for number, split in enumerate(SPLITS):
                write_split(pool, partial / split, (seed, number), image_sizes, request[split])
        (partial / MARKER).write_text(json.dumps(request))
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description="Write the embedded data set: COCO JSON and JPEG.")
    parser.add_argument("--output", required=True, help="folder to make; left alone if it already holds the data set")
    parser.add_argument("--train", type=int, default=1000, help="number of training images")
    parser.add_argument("--val", type=int, default=100, help="number of validation images")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    asked = parser.parse_args()
    done = "written" if write_synthetic(asked.output, asked.train, asked.val, seed=asked.seed) else "are there already"
    print(f"{asked.output}: {asked.train} training and {asked.val} validation images {done}")


if __name__ == "__main__":
    main()
