"""Figures show the numbers they are given, and are drawn whatever these are."""

import numpy as np
import pytest
from PIL import Image

from official.vision.draw import pixels_of, save_figure
from official.vision.plots import average_precision_figure, confusion_figure, history_figure, precision_recall_figure


def lines_of(figure) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_ydata() for line in figure.axes[0].get_lines()}


def test_precision_of_each_known_class_and_their_mean():
    recall, precision = np.linspace(0, 1, 5), np.array([[1, 1, 0.5, 0.5, 0], [-1] * 5, [1, 0, 0, 0, 0]]).T
    lines = lines_of(precision_recall_figure(["cat", "absent", "dog"], recall, precision))
    assert lines.keys() == {"cat", "dog", "mean of classes"}
    np.testing.assert_array_equal(lines["mean of classes"], [1, 0.5, 0.25, 0.25, 0])


@pytest.mark.parametrize("classes", [0, 1, 80])
def test_any_number_of_classes_is_drawn(classes):
    names, rng = [f"class {number}" for number in range(classes)], np.random.default_rng(0)
    pixels_of(precision_recall_figure(names, np.linspace(0, 1, 5), np.full([5, classes], 0.5)))
    pixels_of(average_precision_figure({name: {"AP": 0.5, "AP50": 0.7} for name in names}))
    pixels_of(confusion_figure(names, rng.integers(0, 9, [classes + 1, classes + 1]), "confusion"))


def test_bars_are_of_the_known_classes_from_worst_to_best():
    scores = {"a": {"AP": 0.5, "AP50": 0.7}, "b": {"AP": -1.0, "AP50": -1.0}, "c": {"AP": 0.1, "AP50": 0.6}}
    wide, narrow = average_precision_figure(scores).axes[0].containers
    assert [bar.get_width() for bar in wide] == [0.6, 0.7] and [bar.get_width() for bar in narrow] == [0.1, 0.5]


def test_confusions_are_written_where_they_are():
    axes = confusion_figure(["cat", "dog"], np.array([[5, 0, 1], [0, 0, 0], [0, 2, 0]]), "confusion").axes[0]
    assert {text.get_position(): text.get_text() for text in axes.texts} == {(0, 0): "5", (2, 0): "1", (1, 2): "2"}


def test_histories_of_any_sign():
    figure = history_figure({"loss": ([1, 2], [3.0, 0.5]), "rate": ([1], [0.0])})
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear"]


def test_a_figures_pixels_are_those_of_its_file(tmp_path):
    figure = history_figure({"loss": ([1, 2], [3.0, 0.5])})
    save_figure(figure, str(tmp_path / "a.png"))
    pixels = pixels_of(figure)
    assert pixels.shape == (220, 800, 3)
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(tmp_path / "a.png").convert("RGB")))
