"""What of an error a user is told."""

import pytest
import tensorflow as tf

from official.core.errors import first_line


def _decoded_in_a_stream():
    return list(tf.data.Dataset.from_tensors(b"abc").map(lambda encoded: tf.io.decode_jpeg(encoded)))


@pytest.mark.parametrize("decode", [_decoded_in_a_stream, lambda: tf.io.decode_jpeg(b"abc")])
def test_what_tensorflow_says_of_its_graph_is_left_out(decode):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        decode()
    line = first_line(error.value)
    assert line.startswith("Unknown image file format. One of JPEG") and line.endswith("required.")


def test_an_error_without_a_message_is_told_by_its_type():
    assert first_line(KeyError()) == "KeyError"
    assert first_line(ValueError("one\ntwo")) == "one"
