"""Training goes on when an image cannot be read: the next readable one of the data set stands in for it."""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from jaxtyping import Int64

from dataloaders.reading.annotations import DataError
from dataloaders.reading.dataset import DetectionDataset, Example, Examples, TruthForm


class StandIns:
    """The rows of a split that turned out to be unreadable.

    Which row stands in for which follows from the unreadable ones alone, not from the order in which they are found.
    When one is found depends on what was seen of it before, so a run that resumes goes on with those it had (`found`).
    """

    def __init__(self, data: DetectionDataset) -> None:
        self.data = data
        self.found: dict[int, str] = {}  # row: what is the matter with it

    def examples(self, form: TruthForm) -> Examples:
        """The split's, without the unreadable ones that are known by now."""
        examples = self.data.examples(form)
        unreadable = np.array(sorted(self.found), np.int64)
        return _Replaced(examples, unreadable, self._shown(unreadable)) if self.found else examples

    def find(self, rows: Iterable[int]) -> list[str]:
        """Reads what is shown for these rows, one by one: a message for each image that is found to be unreadable.

        Raises:
            DataError: most of the rows are unreadable, which no stand-in makes good.
        """
        rows, messages = list(dict.fromkeys(rows)), []
        for row in rows:
            while True:
                shown = int(self._shown(np.int64(row)))
                try:
                    self.data.check(shown)
                    break
                except DataError as error:
                    self.found[shown] = str(error)
                    unreadable = sum(row in self.found for row in rows)
                    if unreadable > max(1, len(rows) // 2):
                        raise DataError(
                            f"{error}. So it is with {unreadable} of the {len(rows)} images that were read again: is "
                            "the disk or the network gone, or have the files been replaced?"
                        ) from None
                    stand_in = self.data.image_ids[self._shown(np.int64(shown))]
                    messages.append(
                        f"{error}. Until then image id {stand_in} stands in for it, "
                        f"wherever the order has it ({len(self.found)} unreadable so far)"
                    )
        return messages

    def _shown(self, rows: np.int64 | Int64[np.ndarray, " r"]) -> np.int64 | Int64[np.ndarray, " r"]:
        """For each row itself or, where it is known to be unreadable, the next readable one."""
        readable = np.setdiff1d(np.arange(len(self.data)), sorted(self.found))
        return readable[np.searchsorted(readable, rows) % len(readable)]


class _Replaced:
    def __init__(self, examples: Examples, unreadable: Int64[np.ndarray, " r"], after: Int64[np.ndarray, " r"]) -> None:
        self._examples, self._unreadable, self._after = examples, unreadable, after

    def __len__(self) -> int:
        return len(self._examples)

    def read(self, row: Int64[tf.Tensor, ""]) -> Example:
        unreadable, after = (tf.constant(rows, tf.int64) for rows in (self._unreadable, self._after))  # [r]
        place = tf.minimum(tf.searchsorted(unreadable, row[tf.newaxis])[0], len(self._unreadable) - 1)
        return self._examples.read(tf.where(unreadable[place] == row, after[place], row))
