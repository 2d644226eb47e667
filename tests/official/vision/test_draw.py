import numpy as np
import pytest

from official.vision.draw import class_colour, draw_boxes, grid


def picture(height=120, width=200):
    return np.full((height, width, 3), 40, np.uint8)


def test_box_lies_where_it_should():
    image = picture()
    drawn = draw_boxes(image, np.array([[0.5, 0.25, 0.9, 0.75]], np.float32), ["cat"], np.array([0.87]), np.array([3]))
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    assert (image == 40).all()  # a copy was drawn on
    for row, column in ((60, 60), (107, 60), (80, 50), (80, 149)):
        assert tuple(drawn[row, column]) == class_colour(3)
    assert (drawn[80, 100] == 40).all()  # nothing inside
    changed_rows = np.nonzero((drawn != 40).any(axis=(1, 2)))[0]
    assert changed_rows[0] < 60  # the label stands above


def test_classes_have_colours_of_their_own():
    assert len({class_colour(class_id) for class_id in range(80)}) == 80


@pytest.mark.parametrize("size", [(120, 200), (12, 9), (1, 1)])
def test_boxes_outside_degenerate_or_not_finite(size):
    boxes = [[-1, -1, 2, 2], [0.5, 0.5, 0.5, 0.5], [1, 1, 1, 1], [0.9, 0.9, 0.1, 0.1], [2, 2, 3, 3]]
    boxes, count = np.array(boxes, np.float32), len(boxes)
    draw_boxes(picture(*size), boxes, ["a"] * count, None, np.arange(count))
    unfinished = np.array([[np.nan, 0, 1, 1], [0, 0, np.inf, 1]], np.float32)
    assert (draw_boxes(picture(*size), unfinished, ["a", "b"], np.array([np.nan, 0.5]), np.array([0, 1])) == 40).all()


def test_no_boxes():
    assert (draw_boxes(picture(), np.zeros((0, 4), np.float32), [], None, np.zeros(0, int)) == 40).all()


def test_best_box_lies_on_top():
    boxes = np.array([[0.3, 0.2, 0.8, 0.8]] * 2, np.float32)
    drawn = draw_boxes(picture(), boxes, ["a", "b"], np.array([0.9, 0.2]), np.array([0, 1]))
    assert tuple(drawn[60, 40]) == class_colour(0)


def test_grid_shows_every_image():
    images = [np.full((10 + number, 20, 3), number, np.uint8) for number in range(5)]
    sheet = grid(images)
    assert sheet.shape == (2 * 14 + 4, 3 * 20 + 2 * 4, 3)
    for number in range(5):
        assert (sheet == number).all(axis=-1).sum() == (10 + number) * 20
    with pytest.raises(ValueError, match="at least one"):
        grid([])
