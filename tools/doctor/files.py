"""Findings on files: faults of images and boxes, what cannot be decoded, what is stored in an odd way."""

import numpy as np

from dataloaders.reading.checks import KINDS, NOT_FATAL
from dataloaders.reading.checks import Finding as DoorFinding
from tools.doctor.findings import Finding, Severity, percent
from tools.doctor.splits import SplitData

# trait -> (severity, what it is, what the pipeline makes of it, what to do)
TRAITS: dict[str, tuple[Severity, str, str, str]] = {
    "cut_short": (
        "fault",
        "the JPEG's data stops before its last row, though an end mark follows",
        "what is missing is decoded as one flat colour, without an error",
        "fetch the file again, or remove it",
    ),
    "exif_rotated": (
        "warning",
        "the file asks (EXIF orientation) to be shown turned or mirrored",
        "the orientation is not applied: training sees the pixels as stored",
        "see that the boxes fit the stored pixels (viewers turn them), or store the pixels upright without the tag",
    ),
    "sixteen_bits": (
        "warning",
        "the PNG has 16 bits a channel",
        "the upper 8 are kept; values that fill only the lower ones become black",
        "where the range is not full, scale to 8 bits beforehand",
    ),
    "cmyk": (
        "warning",
        "the JPEG is CMYK",
        "becomes RGB by K * C / 255 and so on, without a colour profile: colours are off",
        "convert to RGB with its profile",
    ),
    "dark": ("warning", "no region is brighter than level 15 of 255", "is trained as it is", "look at the files"),
    "one_colour": ("warning", "all pixels have the same colour", "is trained as it is", "look at the files"),
    "alpha": ("note", "the file has transparency", "is dropped; what it hid becomes visible", ""),
    "grey": ("note", "the file is grey", "its levels become all three channels", ""),
}

# Causes and remedies beyond the words of reading/checks.py.
_CAUSES = {
    "truncated_image": "a download or copy that was interrupted",
    "unreadable_image": "another format under the name of a JPEG or PNG, or no image",
    "missing_image": "a wrong folder in the source, or a file that was not copied",
    "zero_area_box": "a click in a labelling tool, or a box rounded away",
    "inverted_box": "exchanged corners, or another box format",
    "duplicate_image": "the annotation lists an image twice, or two lists were joined",
    "unknown_image": "images were removed from the list, and their boxes were not",
    "unknown_category": "a category that data.classes leaves out, or another spelling",
}


def files_findings(data: SplitData) -> list[Finding]:
    """All findings on the split's files."""
    return [*_faults(data), *_undecodable(data), *_nothing_left(data), *_traits(data)]


def _faults(data: SplitData) -> list[Finding]:
    """Findings of the checks when a run starts: a fault where they stop it, a warning where they drop and go on."""
    path = dict(zip(reversed(data.stated.image_ids.tolist()), reversed(data.stated.image_paths), strict=True))
    findings = []
    for found in data.examined.report.findings:
        what, dropped = KINDS[found.kind]
        severity, does, remedy = "warning", f"on_bad: skip: {dropped}", ""
        if found.kind in NOT_FATAL:
            severity, does = "note", dropped
        elif data.config.on_bad == "fail":
            severity, does = "fault", "training does not start"
            remedy = f"repair it, or set `on_bad: skip` ({dropped})"
        findings.append(
            Finding(
                severity,
                found.kind,
                data.name,
                f"{what}{found.detail}; {does}",
                found.count,
                tuple(path.get(image_id, f"image id {image_id}") for image_id in found.image_ids),
                _cause(data, found),
                remedy,
            )
        )
    return findings


def _cause(data: SplitData, found: DoorFinding) -> str:
    if found.kind != "wrong_image_size":
        return _CAUSES.get(found.kind, "")
    rows = np.flatnonzero(data.examined.image_kinds == found.kind)
    stated = data.stated.image_sizes[rows]
    exchanged = [data.images[row].size == tuple(size[::-1].tolist()) for row, size in zip(rows, stated, strict=True)]
    turned = [data.images[row].orientation >= 5 for row in rows[np.array(exchanged, bool)]]
    if turned and all(turned):
        return "annotated on the image as its EXIF orientation turns it: the boxes do not fit the stored pixels"
    if any(exchanged):
        return f"height and width are exchanged in {percent(sum(exchanged), len(rows))} of them"
    return "annotated on images of another resolution, or the files were resized since"


def _undecodable(data: SplitData) -> list[Finding]:
    """Files that pass the checks of header and end, and then cannot be decoded."""
    rows = [row for row in np.flatnonzero(data.examined.keep_image).tolist() if data.images[row].problem]
    if not rows:
        return []
    where = tuple(f"{data.stated.image_paths[row]} ({data.images[row].problem})" for row in rows)
    return [
        Finding(
            "fault",
            "undecodable_image",
            data.name,
            "header and end mark are there, but the image cannot be decoded",
            len(rows),
            where,
            "bytes in the middle were damaged",
            "fetch the file again, or remove it from the annotations",
        )
    ]


def _nothing_left(data: SplitData) -> list[Finding]:
    if data.kept.any():
        return []
    what = f"none of the {len(data.images)} images can be used"
    remedy = "see the findings above: usually the folder of the images is wrong"
    return [Finding("fault", "no_image", data.name, what, len(data.images), (), "", remedy)]


def _traits(data: SplitData) -> list[Finding]:
    findings = []
    for trait, (severity, what, made_of_it, remedy) in TRAITS.items():
        rows = [row for row, facts in enumerate(data.images) if trait in facts.traits]
        if rows:
            message = f"{what} ({percent(len(rows), len(data.images))} of the images); {made_of_it}"
            findings.append(Finding(severity, trait, data.name, message, len(rows), data.files(rows), remedy=remedy))
    return findings
