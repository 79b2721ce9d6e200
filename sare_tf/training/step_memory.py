"""The memory that one training step needs at most, read from its graph.

TensorFlow traces the step for images of a size, without running it. The
operations are gone through in their order: an output takes memory from the
operation that makes it to the last one that reads it, a gradient of a weight to
the end. What counts beside inputs and outputs are the columns that gradients of
convolutions are computed with, and copies of tensors whose dimensions are
permuted for a product. Weights, and what lies in variables, do not count.

These are TensorFlow's kernels on a CPU. Buffers that they ask for without
writing to them, such as those of a forward convolution, take no memory. The
convolutions of oneDNN, with TF_ENABLE_ONEDNN_OPTS=1, need no columns.
"""

import itertools
import math
import os

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

# Bytes of what a gradient of a convolution works on at a time: TensorFlow takes
# as many images as fit into the L3 cache, which has about this size.
_CACHE = 1 << 25


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
    for tensor in graph.outputs:
        # Gradients stay until all weights are updated.
        last_read[memory.get(tensor.name, tensor.name)] = len(operations)
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
        made = {tensor.name: _bytes(tensor) for tensor in operation.outputs}
        size = sum(made.values())
        now += size - min(reused, size)
        peak = max(peak, now + _work_space(operation))
        now += min(reused, size)
        held |= made
        unread = {name for name in made if last_read.get(name, -1) < position}
        for name in ending | unread:
            now -= held.pop(name)
    return peak


def _work_space(operation: tf.Operation) -> int:
    """Returns the bytes that an operation takes beside inputs and outputs."""
    if operation.type in ("Conv2DBackpropInput", "Conv2DBackpropFilter"):
        if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1":
            return 0
        return _columns(operation)
    if operation.type == "Einsum":
        return _permuted(operation)
    return 0


def _columns(operation: tf.Operation) -> int:
    """Returns the bytes of images as columns, for gradients of convolutions.

    Of each location, columns have all numbers below the kernel. The gradients
    by inputs and by weights are computed at the same time, each by a product
    with columns: the former of an image, the latter of as many images as fit.
    """
    if operation.type == "Conv2DBackpropInput":
        kernel = operation.inputs[1]
    else:
        kernel = operation.outputs[0]
    gradient = operation.inputs[2]
    if not (kernel.shape + gradient.shape).is_fully_defined():
        return 0
    rows, columns, channels, filters = kernel.shape
    if rows * columns == 1:
        return 0
    images, height, width, _ = gradient.shape
    below = rows * columns * channels
    size = kernel.dtype.size
    of_image = height * width * below * size
    together = height * width * (below + filters) + below * filters
    fitting = max(1, _CACHE // (together * size))
    return of_image * (1 + min(images, fitting))


def _permuted(operation: tf.Operation) -> int:
    """Returns the bytes of copies of what has another order in a product.

    A product of matrices takes its dimensions in the order: those of all three
    tensors, then those of two of them, which are together.
    """
    equation = operation.get_attr("equation").decode()
    given, result = equation.split("->")
    letters = [*given.split(","), result]
    tensors = [*operation.inputs, *operation.outputs]
    copies = 0
    for number, (own, tensor) in enumerate(zip(letters, tensors, strict=True)):
        others = [*letters[:number], *letters[number + 1 :]]
        # Of each dimension, which of the other tensors have it.
        kinds = [tuple(letter in each for each in others) for letter in own]
        groups = [kind for kind, _ in itertools.groupby(kinds)]
        is_last = [len(kind) == sum(kind) for kind in groups]
        if len(set(groups)) < len(groups) or any(is_last[1:]):
            copies += _bytes(tensor)
    return copies


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
