"""The memory that one training step needs at most, read from its graph.

TensorFlow traces the step for images of a size, without running it. The
operations are gone through in their order: an output takes memory from the
operation that makes it to the last one that reads it. Weights, their gradients
and what lies in variables do not count.
"""

import math

import keras
import tensorflow as tf

from sare_tf.model import drop_path

# Their output is their input: no memory.
_SAME_MEMORY = {
    *("Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims"),
    *("StopGradient", "PreventGradient", "ReadVariableOp", "Placeholder"),
    *("EnsureShape", "Const", "Snapshot", "CheckNumerics"),
}
# They read only shapes, which are known before the step runs.
_OF_SHAPES = {
    *("Shape", "ShapeN", "Size", "Rank", "BroadcastGradientArgs"),
    *("ConcatOffset", "ZerosLike", "OnesLike", "Fill", "Range"),
}
# Elementwise: they write to the memory of an input that nothing else reads.
_IN_PLACE = {
    *("Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "DivNoNan", "Neg"),
    *("BiasAdd", "Relu", "Relu6", "Elu", "Sigmoid", "Tanh", "Exp", "Log"),
    *("Log1p", "Sqrt", "Rsqrt", "Square", "Pow", "Erf", "Erfc", "Maximum"),
    *("Minimum", "SquaredDifference", "Softmax", "ReluGrad", "Relu6Grad"),
    *("SigmoidGrad", "TanhGrad", "RsqrtGrad", "SqrtGrad", "Inv", "Select"),
    *("SelectV2", "Softplus", "Reciprocal", "Abs", "Sign", "Cast"),
}


# Libraries bring what they read and write into another order, in a copy.
_WITH_COPIES = {
    *("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter"),
    "DepthwiseConv2dNative",
    "DepthwiseConv2dNativeBackpropInput",
    "DepthwiseConv2dNativeBackpropFilter",
}


def peak_bytes(
    embedder: keras.Model,
    images: int,
    *,
    path_draws: int,
) -> int:
    """Estimates the most memory that outputs of a step take at a time.

    Args:
        embedder: a form of the embedder, [B, ...] -> [B, D].
        images: B, of one replica.
        path_draws: random numbers of an image for stochastic depth; 0: none.
    """
    shape = (images, *embedder.input_shape[1:])
    spec = tf.TensorSpec(shape, embedder.inputs[0].dtype)
    weights = embedder.trainable_variables

    @tf.function(autograph=False)
    def step(batch):
        draws = tf.zeros((images, path_draws)) if path_draws else None
        with tf.GradientTape() as tape, drop_path.given(draws):
            descriptors = embedder(batch, training=True)
        return tape.gradient(descriptors, weights, descriptors)

    return _peak(step.get_concrete_function(spec).graph)


def _peak(graph: tf.Graph) -> int:
    """Goes through a graph; returns the most bytes that are held at a time."""
    operations = _needed(graph)
    memory = {}  # name of a tensor -> name of the one whose memory it has
    last_read = {}
    for position, operation in enumerate(operations):
        for tensor in operation.inputs:
            owner = memory.get(tensor.name, tensor.name)
            if operation.type not in _OF_SHAPES:
                last_read[owner] = position
        if operation.type in _SAME_MEMORY:
            for tensor, source in zip(
                operation.outputs, operation.inputs, strict=False
            ):
                memory[tensor.name] = memory.get(source.name, source.name)
    results = {memory.get(each.name, each.name) for each in graph.outputs}
    held, now, peak = {}, 0, 0
    for position, operation in enumerate(operations):
        if operation.type in _SAME_MEMORY or operation.type in _OF_SHAPES:
            continue
        ending = {
            owner
            for tensor in operation.inputs
            if last_read[owner := memory.get(tensor.name, tensor.name)]
            == position
            and owner in held
        }
        reused = 0
        if operation.type in _IN_PLACE and ending:
            reused = max(held[owner] for owner in ending)
        made = {
            tensor.name: _bytes(tensor)
            for tensor in operation.outputs
            if tensor.name not in results
        }
        size = sum(made.values())
        now += size - min(reused, size)
        copies = 0
        if operation.type in _WITH_COPIES:
            copies = size + sum(
                held.get(memory.get(tensor.name, tensor.name), 0)
                for tensor in operation.inputs
            )
            copies = max(copies, _columns(operation))
        peak = max(peak, now + copies)
        now += min(reused, size)
        held |= made
        unread = {name for name in made if last_read.get(name, -1) < position}
        for name in ending | unread:
            now -= held.pop(name)
    return peak


def _columns(operation: tf.Operation) -> int:
    """Returns the bytes of an image as columns, for gradients of convolutions.

    The gradients by inputs and by weights are computed at the same time, each
    by a product with columns of an image: of each location, all numbers below
    the kernel.
    """
    if operation.type == "Conv2DBackpropInput":
        kernel = operation.inputs[1]
    elif operation.type == "Conv2DBackpropFilter":
        kernel = operation.outputs[0]
    else:
        return 0
    outputs = operation.inputs[2].shape
    if not (kernel.shape + outputs[1:]).is_fully_defined():
        return 0
    rows, columns, channels, _ = kernel.shape
    height, width = outputs[1:3]
    if rows * columns == 1:
        return 0
    numbers = height * width * rows * columns * channels
    return 2 * numbers * kernel.dtype.size


def _needed(graph: tf.Graph) -> list[tf.Operation]:
    """Returns the operations that the results of a graph need, in order."""
    needed, ahead = set(), [tensor.op for tensor in graph.outputs]
    while ahead:
        operation = ahead.pop()
        if operation.name not in needed:
            needed.add(operation.name)
            ahead += [tensor.op for tensor in operation.inputs]
    return [each for each in graph.get_operations() if each.name in needed]


def _bytes(tensor: tf.Tensor) -> int:
    shape = tensor.shape
    if shape.rank is None or None in shape.as_list():
        return 0
    return math.prod(shape.as_list()) * (tensor.dtype.size or 0)
