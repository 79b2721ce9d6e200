"""An embedder in other forms, which share its layers.

    whole       images -> frozen layers -> trained layers -> descriptors
    split       images -> frozen layers -> features
                features -> trained layers -> descriptors
    fast        as the whole; frozen layers compute as in an export
    recomputed  as the fast form or the second half, but training computes the
                outputs inside of a block again for their gradients

A frozen layer is one that no trained weight comes before: its output for an
image stays the same in training. Features are all outputs of frozen layers that
trained layers take, one after the other, so that they are one vector per image.

Trained weights have the same order in all forms, so that one optimizer trains
any of them.

Axis letters: B images, H W pixels, F numbers of the features of an image, D
descriptor length.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import keras

from sare_tf.model import blocks_of_layers, inference_network
from sare_tf.model.data_checks import Embedder
from sare_tf.model.part_layers import (
    BlankImages,
    Concatenated,
    Recomputed,
    Separated,
    check_repeatable,
)


@dataclasses.dataclass(frozen=True)
class Split:
    """The two halves of an embedder.

    Attributes:
        frozen: images [B, H, W, 3] -> features [B, F], of type `dtype`.
        trained: features [B, F] -> descriptors [B, D]; named "embedder".
        dtype: type of the features, "float32" or the type of mixed precision.
        train_from: name of the first layer that is trained.
    """

    frozen: keras.Model
    trained: keras.Model
    dtype: str
    train_from: str


def split(
    embedder: keras.Model, *, height: int, width: int, recompute: bool
) -> Split:
    """Cuts an embedder where its trained layers begin.

    Args:
        embedder: a model of `build_embedder`.
        height: rows of an image.
        width: columns of an image.
        recompute: see `recomputed`, for the second half.

    Raises:
        ValueError: no layer with weights is frozen.
    """
    graph = _Graph(embedder, height, width)
    outputs = graph.frozen_outputs()
    graph.check_frozen()
    stored = [
        (graph.boundary[number], spec)
        for number, spec in enumerate(outputs)
        if id(graph.boundary[number]) not in graph.only_shapes
    ]
    shapes = [tuple(spec.shape[1:]) for _, spec in stored]
    dtypes = {spec.dtype for _, spec in stored}
    dtype = dtypes.pop() if len(dtypes) == 1 else "float32"
    flat = Concatenated(dtype=dtype, name="features")
    frozen = keras.Model(
        graph.images,
        flat([outputs[graph.boundary.index(tensor)] for tensor, _ in stored]),
        name="frozen",
    )
    check_repeatable(frozen, "--cache_frozen")
    length = sum(map(math.prod, shapes))
    features = keras.Input((length,), dtype=dtype, name="images")
    apart = iter(Separated(shapes, dtype=dtype, name="apart")(features))
    given = [
        BlankImages(tuple(spec.shape[1:3]), name="blank")(features)
        if id(tensor) in graph.only_shapes
        else next(apart)
        for tensor, spec in zip(graph.boundary, outputs, strict=True)
    ]
    descriptors = graph.after(graph.trained(given, recompute=recompute))
    return Split(
        frozen,
        Embedder(features, descriptors, name="embedder"),
        dtype,
        graph.train_from,
    )


def fast(embedder: keras.Model, *, height: int, width: int) -> keras.Model:
    """Makes a form whose frozen layers take less time.

    Their batch normalisations are folded, and TensorFlow can fuse what is left,
    see `inference_network`. Descriptors and gradients are the same up to
    rounding.

    Args:
        embedder: a model of `build_embedder`.
        height: rows of an image.
        width: columns of an image.

    Returns:
        A model named "embedder", [B, H, W, 3] -> [B, D]; if no layer with
        weights is frozen, `embedder` itself.
    """
    graph = _Graph(embedder, height, width)
    if not graph.has_frozen():
        return embedder
    descriptors = graph.after(
        graph.trained(graph.frozen_outputs(is_fast=True), recompute=False)
    )
    return Embedder(graph.images, descriptors, name="embedder")


def recomputed(
    embedder: keras.Model, *, height: int, width: int
) -> keras.Model:
    """Makes a fast form that holds fewer activations in training.

    The trained layers of the backbone are grouped to blocks. A step keeps the
    inputs of blocks, and computes what is inside of one again before its
    gradients: for one more forward pass of all blocks but the last, memory for
    one block at a time. Gradients are the same.

    Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016,
    with blocks of any size, chosen to hold the least.

    Args:
        embedder: a model of `build_embedder`.
        height: rows of an image.
        width: columns of an image.

    Returns:
        A model named "embedder", [B, H, W, 3] -> [B, D].
    """
    graph = _Graph(embedder, height, width)
    descriptors = graph.after(
        graph.trained(graph.frozen_outputs(is_fast=True), recompute=True)
    )
    return Embedder(graph.images, descriptors, name="embedder")


class _Graph:
    """The layers of an embedder: before, in and after its backbone.

    Attributes:
        images: symbolic images, [B, H, W, 3].
        boundary: tensors of the backbone that frozen layers give trained ones.
        only_shapes: ids of those of which only the shape is read.
    """

    def __init__(self, embedder: keras.Model, height: int, width: int):
        self.images = keras.Input(
            (height, width, 3), dtype="float32", name="images"
        )
        self.backbone = embedder.get_layer("backbone")
        nodes = blocks_of_layers.nodes_of(embedder)
        calls = [node.operation for node in nodes].index(self.backbone)
        self._before, self._after = nodes[:calls], nodes[calls + 1 :]
        self._call, self._embedder = nodes[calls], embedder
        self._divide()

    def _divide(self) -> None:
        """Finds the trained nodes, and the tensors that they take."""
        trained, self._nodes = set(), []
        for node in blocks_of_layers.nodes_of(self.backbone):
            if getattr(node.operation, "trainable_variables", ()) or any(
                id(tensor) in trained for tensor in node.input_tensors
            ):
                self._nodes.append(node)
                trained.update(map(id, node.outputs))
        taken, values = {}, set()
        for node in self._nodes:
            shapes = getattr(node.operation, "ONLY_SHAPES_OF", ())
            for number, tensor in enumerate(node.input_tensors):
                if id(tensor) not in trained:
                    taken[id(tensor)] = tensor
                    if number not in shapes:
                        values.add(id(tensor))
        for tensor in self.backbone.outputs:
            if id(tensor) not in trained:
                taken[id(tensor)] = tensor
                values.add(id(tensor))
        self.boundary = list(taken.values())
        self.only_shapes = taken.keys() - values

    def has_frozen(self) -> bool:
        """Whether a frozen layer of the backbone has weights."""
        trained = {id(node.operation) for node in self._nodes}
        return any(
            layer.weights and id(layer) not in trained
            for layer in self.backbone.layers
        )

    def check_frozen(self) -> None:
        """Refuses a backbone without a frozen layer that has weights."""
        if not self.has_frozen():
            raise ValueError(
                "Expected frozen layers, whose features can be stored. "
                "Received: a backbone that is trained from "
                f"{self.train_from!r}, its first layer. Freeze blocks by "
                "--train_from, or leave --cache_frozen out."
            )

    @property
    def train_from(self) -> str:
        """Name of the first layer that is trained."""
        return self._nodes[0].operation.name if self._nodes else "aggregation"

    def frozen_outputs(
        self, *, is_fast: bool = False
    ) -> list[keras.KerasTensor]:
        """Returns the boundary as computed of `images`.

        Args:
            is_fast: whether layers compute as in an export.
        """
        (inputs,) = _applied(
            self._before,
            {id(self._embedder.inputs[0]): self.images},
            self._call.input_tensors,
            name="preprocess",
        )
        trained = {id(node) for node in self._nodes}
        frozen = [
            node
            for node in blocks_of_layers.nodes_of(self.backbone)
            if id(node) not in trained
        ]
        known = {id(self.backbone.inputs[0]): inputs}
        return _applied(
            frozen,
            known,
            self.boundary,
            name="frozen_layers",
            form=inference_network.of if is_fast else None,
        )

    def trained(
        self, given: Sequence[keras.KerasTensor], *, recompute: bool
    ) -> list[keras.KerasTensor]:
        """Applies the trained layers of the backbone to the boundary."""
        known = dict(zip(map(id, self.boundary), given, strict=True))
        nodes, outputs = self._nodes, self.backbone.outputs
        if recompute and nodes:
            *blocks, last = blocks_of_layers.divide(
                nodes, outputs, sizes=self._sizes()
            )
            for number, block in enumerate(blocks):
                _recompute(block, known, f"recomputed{number}")
            nodes = last.nodes
        return _applied(nodes, known, outputs, name="trained_layers")

    def after(self, features: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        """Applies what comes after the backbone."""
        known = dict(zip(map(id, self._call.outputs), features, strict=True))
        (descriptors,) = _applied(
            self._after, known, self._embedder.outputs, name="aggregate"
        )
        return descriptors

    def _sizes(self) -> dict[int, int]:
        """Returns the numbers of an image of each trained output."""
        outputs = [tensor for node in self._nodes for tensor in node.outputs]
        images = keras.KerasTensor((1, *self.images.shape[1:]), "float32")
        specs = keras.Model(self.backbone.inputs, outputs).compute_output_spec(
            images
        )
        return {
            id(tensor): math.prod(spec.shape)
            for tensor, spec in zip(
                outputs, keras.tree.flatten(specs), strict=True
            )
        }


def _recompute(block, known: dict, name: str) -> None:
    """Applies a block that training computes again."""
    (output,) = block.outputs
    taken = block.inputs(known)
    given = [known[id(tensor)] for tensor in taken]
    part = _part(block.nodes, taken, given, [output], name)
    check_repeatable(part, "--recompute_blocks")
    known[id(output)] = Recomputed(part, name=name)(given)


def _applied(
    nodes: Sequence,
    known: dict,
    outputs: Sequence,
    *,
    name: str,
    form: Callable[[keras.Model], keras.Model] | None = None,
) -> list[keras.KerasTensor]:
    """Applies calls of layers to the known tensors, as one model.

    Args:
        nodes: the calls.
        known: tensors by the ids of those that the calls are of.
        outputs: what is wanted.
        name: name of the model.
        form: makes the model that is applied; None: the one of the calls.
    """
    block = blocks_of_layers.Block(list(nodes), [])
    taken = block.inputs(known)
    computed = [tensor for tensor in outputs if id(tensor) not in known]
    if computed:
        given = [known[id(tensor)] for tensor in taken]
        part = _part(nodes, taken, given, computed, name)
        if form is not None:
            part = form(part)
        known = known | dict(zip(map(id, computed), part(given), strict=True))
    return [known[id(tensor)] for tensor in outputs]


def _part(nodes, taken, given, outputs, name) -> keras.Model:
    """Makes a model of calls of layers, by calling the layers once more."""
    inputs = [
        keras.Input(tuple(spec.shape[1:]), dtype=spec.dtype) for spec in given
    ]
    known = dict(zip(map(id, taken), inputs, strict=True))
    for node in nodes:
        arguments, keywords = node.arguments.fill_in(known)
        made = node.operation(*arguments, **keywords)
        known |= zip(
            map(id, node.outputs), keras.tree.flatten(made), strict=True
        )
    return keras.Model(
        inputs, [known[id(tensor)] for tensor in outputs], name=name
    )
