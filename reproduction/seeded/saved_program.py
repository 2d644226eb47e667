"""A SavedModel as a program of its own, which leaves nothing behind."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf
from jaxtyping import Shaped

Signature = Callable[..., Mapping[str, Shaped[np.ndarray, "..."]]]  # inputs and outputs by name


@contextlib.contextmanager
def signatures_of(folder: str) -> Iterator[Mapping[str, Signature]]:
    """The signatures of the SavedModel in a folder, by name, for as long as it is loaded.

    Its graph runs as written; so do the functions in it if it was saved within `graphs_as_written`, which they keep.

    A session gives back what it holds. The functions that `tf.saved_model.load` makes stay until the process ends: of
    yolov4-tiny (23 MB of weights) 450 MB each time it is loaded and called.
    """
    options = tf.compat.v1.ConfigProto()
    options.graph_options.rewrite_options.disable_meta_optimizer = True  # see `graphs_as_written`
    options.graph_options.optimizer_options.opt_level = tf.compat.v1.OptimizerOptions.L0
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph, config=options)
    try:
        with graph.as_default():
            loaded = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], folder)

        def ask(name: str, **inputs: tf.Tensor) -> Mapping[str, Shaped[np.ndarray, "..."]]:
            signature = loaded.signature_def[name]
            outputs = {key: one.name for key, one in signature.outputs.items()}
            return session.run(outputs, {signature.inputs[key].name: np.asarray(one) for key, one in inputs.items()})

        yield {name: functools.partial(ask, name) for name in loaded.signature_def}
    finally:
        session.close()
