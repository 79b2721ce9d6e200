"""Checks of the values of tensors, in eager calls and in graphs.

Values are known in an eager call. A graph checks them when it runs, if its
backend can: an assertion with TensorFlow, a callback with JAX. In a graph that
XLA compiles, TensorFlow drops assertions; then the results become NaN, and a
warning says so when the graph is built.
"""

import functools

import keras
from absl import logging
from keras import ops


def has_values(tensor) -> bool:
    """Returns whether a tensor has values, as in an eager call.

    Args:
        tensor: a tensor of the backend, or an array.
    """
    if keras.backend.is_keras_tensor(tensor):
        return False
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return not tf.is_symbolic_tensor(tensor)
    if backend == "jax":
        import jax

        return not isinstance(tensor, jax.core.Tracer)
    if backend == "torch":
        import torch

        is_meta = isinstance(tensor, torch.Tensor) and tensor.is_meta
        return not (is_meta or torch.compiler.is_compiling())
    return True


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
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        if not _is_compiled_by_xla(tf.compat.v1.get_default_graph()):
            tf.debugging.Assert(valid, [message])
            return tensor
    if backend == "jax":
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


def _is_compiled_by_xla(graph) -> bool:
    # TensorFlow has no public function for this.
    from tensorflow.python.ops import control_flow_util

    return control_flow_util.GraphOrParentsInXlaContext(graph)
