"""What recorded detections would score with a known mistake in how they are scored."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

from official.vision.coco import evaluate_coco

Found = Sequence[Mapping[str, Any]]  # COCO results
_FLOORS = (0.05, 0.1, 0.2, 0.25, 0.5)
_LIMITS = (1, 10, 20)


class Scores:
    """Of COCO results against a ground truth; each mistake is scored once, whatever is asked of it."""

    def __init__(
        self,
        truth: dict[str, Any],
        found: Found,
        others: Mapping[str, Callable[[dict[str, Any], Found], float]] = MappingProxyType({}),
    ) -> None:
        """others: scores by other protocols, by name, that may have been taken for AP."""
        self._truth, self._found, self._others = truth, found, others
        self._known: dict[str, dict[str, Any]] = {}  # by mistake

    def alternatives(self, metric: str) -> Mapping[str, Callable[[], Float[np.ndarray, ""]]]:
        """AP, AP50 or AP75 with each mistake."""
        names = [f"score_floor {floor}" for floor in _FLOORS] + [f"detections_limit {most}" for most in _LIMITS]
        names += ["class_ids_91 ids for indices", "class_ids_shifted plus 1", "class_ids_shifted minus 1"]
        names.append("image_mirrored boxes")
        found = {name: lambda name=name: np.array(self._scored(name)[metric]) for name in names}
        if metric == "AP":
            found["metric_protocol AP50 for AP"] = lambda: np.array(self._scored("")["AP50"])
            for name, score in self._others.items():
                found[f"metric_protocol {name} for AP"] = lambda score=score: np.array(score(self._truth, self._found))
        return found

    @functools.cached_property
    def _ids(self) -> list[int]:
        return sorted(category["id"] for category in self._truth["categories"])

    def _scored(self, mistake: str) -> dict[str, Any]:
        if mistake not in self._known:
            self._known[mistake] = self._score(mistake)
        return self._known[mistake]

    def _score(self, mistake: str) -> dict[str, Any]:
        cause, _, variant = mistake.partition(" ")
        most = int(variant) if cause == "detections_limit" else 100
        return evaluate_coco(self._truth, self._changed(cause, variant), most)

    def _changed(self, cause: str, variant: str) -> list[dict[str, Any]]:
        ids = self._ids
        if cause == "score_floor":
            return [dict(one) for one in self._found if one["score"] > float(variant)]
        if cause in ("class_ids_91", "class_ids_shifted"):
            index = {number: at for at, number in enumerate(ids)}
            step = -1 if "minus" in variant else 1

            def of(number: int) -> int:
                return index[number] + 1 if cause == "class_ids_91" else ids[(index[number] + step) % len(ids)]

            changed = [{**one, "category_id": of(one["category_id"])} for one in self._found]
            return [one for one in changed if one["category_id"] in index]
        if cause == "image_mirrored":
            width = {image["id"]: image["width"] for image in self._truth["images"]}
            return [
                {**one, "bbox": [width[one["image_id"]] - one["bbox"][0] - one["bbox"][2], *one["bbox"][1:]]}
                for one in self._found
            ]
        return [dict(one) for one in self._found]
