"""Checks of the values of tensors in graphs, when they run.

TensorFlow has assertions, JAX has callbacks. In a graph that XLA compiles,
TensorFlow drops assertions; then the results become NaN, and a warning says so
when the graph is built.
"""

import functools

import keras
from absl import logging
from keras import ops

from sare_tf.runtime import symbolic_tensors


def require(valid, tensor, *, message: str):
    """Makes a graph fail when it runs and a condition is false.

    Args:
        valid: bool, a symbolic scalar.
        tensor: float, what the results of the graph are computed from.
        message: what was expected, what was received, and what to do.

    Returns:
        `tensor`; with NaN for its values where the graph could go on although
        the condition is false.
    """
    if symbolic_tensors.graph_can_run_python():
        import tensorflow as tf

        tf.debugging.Assert(valid, [message])
        return tensor
    if keras.backend.backend() == "jax":
        import jax

        jax.debug.callback(functools.partial(_raise, message), valid)
    else:
        logging.warning(
            "This graph is compiled and cannot raise errors when it runs: the "
            "loss will be NaN in this case: %s",
            message,
        )
    return ops.where(valid, tensor, float("nan"))


def _raise(message: str, valid) -> None:
    if not valid:
        raise ValueError(message)
