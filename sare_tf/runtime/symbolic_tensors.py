"""Which tensors have values now, and which only when a graph runs.

Keras has one interface for its backends, but not for this.
"""

import keras


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


def graph_can_run_python() -> bool:
    """Returns whether a graph of TensorFlow is built that XLA does not compile.

    XLA drops assertions, and cannot call Python.
    """
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    # TensorFlow has no public function for this.
    from tensorflow.python.ops import control_flow_util

    graph = tf.compat.v1.get_default_graph()
    return not control_flow_util.GraphOrParentsInXlaContext(graph)
