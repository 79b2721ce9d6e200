"""Embedding and back-propagation of a few images at a time.

Activations are held only for the images of one chunk. Axis letters: b images of
a replica, D descriptor length.
"""

import keras
import tensorflow as tf

# Attributes by which layers depend on chance: dropout, stochastic depth.
_RATES = ("rate", "drop_rate")


def check_repeatable(layer: keras.layers.Layer) -> None:
    """Refuses layers that give an image another descriptor in another batch.

    Raises:
        ValueError: names the layer.
    """
    for inner in getattr(layer, "layers", []):
        check_repeatable(inner)
        normalises = isinstance(inner, keras.layers.BatchNormalization)
        random = any(getattr(inner, name, 0) for name in _RATES) or (
            not hasattr(inner, "rate") and hasattr(inner, "seed_generator")
        )
        if random or (normalises and inner.trainable):
            raise ValueError(
                "Expected layers that give an image the same descriptor in "
                "every batch, to embed in chunks. "
                f"Received: chunk_images with the layer {inner.name!r}, a "
                f"{type(inner).__name__}. Freeze batch normalisation and set "
                "the rate of dropout to 0, or leave chunk_images at 0."
            )


def embed(embedder: keras.Model, images: tf.Tensor, *, size: int) -> tf.Tensor:
    """Embeds images without gradient.

    Args:
        embedder: [B, H, W, 3] -> [B, D].
        images: [b, H, W, 3].
        size: images of a chunk.

    Returns:
        Descriptors, float32 [b, D].

    Raises:
        ValueError: the size does not divide b.
    """
    # A loop in the graph, one chunk after the other: TensorFlow would run
    # several chunks of an unrolled loop at a time.
    descriptors = tf.map_fn(
        lambda chunk: embedder(chunk, training=True),
        _in_chunks(images, size),
        parallel_iterations=1,
        fn_output_signature=tf.float32,
    )
    return tf.reshape(descriptors, (-1, descriptors.shape[-1]))


def gradients(
    embedder: keras.Model,
    images: tf.Tensor,
    by_descriptor: tf.Tensor,
    *,
    size: int,
) -> list[tf.Tensor]:
    """Propagates gradients of descriptors to the weights of the embedder.

    Args:
        embedder: [B, H, W, 3] -> [B, D].
        images: [b, H, W, 3].
        by_descriptor: gradient with respect to the descriptors, [b, D].
        size: images of a chunk.

    Returns:
        Gradients of the trainable variables of the embedder.

    Raises:
        ValueError: the size does not divide b.
    """
    weights = embedder.trainable_variables
    images = _in_chunks(images, size)
    by_descriptor = _in_chunks(by_descriptor, size)

    def propagate(number, *sums):
        with tf.GradientTape() as tape:
            descriptors = embedder(images[number], training=True)
        of_chunk = tape.gradient(
            descriptors,
            weights,
            by_descriptor[number],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        sums = [a + b for a, b in zip(sums, of_chunk, strict=True)]
        return (number + 1, *sums)

    zeros = [tf.zeros(weight.shape, weight.dtype) for weight in weights]
    _, *sums = tf.while_loop(
        lambda number, *_: number < tf.shape(images)[0],
        propagate,
        (0, *zeros),
        parallel_iterations=1,
    )
    return sums


def _in_chunks(tensor: tf.Tensor, chunk_images: int) -> tf.Tensor:
    """[b, ...] -> [b / chunk_images, chunk_images, ...]."""
    size, *rest = tensor.shape
    if size is not None and size % chunk_images:
        raise ValueError(
            "Expected chunk_images to divide the images of a replica. "
            f"Received: chunk_images={chunk_images}, {size} images."
        )
    # Height and width may only be known at run time.
    shape = tf.concat([[-1, chunk_images], tf.shape(tensor)[1:]], 0)
    chunks = tf.reshape(tensor, shape)
    return tf.ensure_shape(chunks, (None, chunk_images, *rest))
