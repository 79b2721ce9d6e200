"""What a step of training on batches of places cannot do is refused."""

import keras
import tensorflow as tf


def check(network: keras.Model, sample_weight: tf.Tensor | None) -> None:
    """Refuses weights, layers and losses that a `PlaceNetwork` cannot train.

    Args:
        network: a compiled `PlaceNetwork`.
        sample_weight: what `fit` was given.

    Raises:
        ValueError: says what to do instead.
    """
    if sample_weight is not None:
        raise ValueError(
            "Expected only images and labels. Received: sample_weight, of "
            f"shape {sample_weight.shape}."
        )
    if network.embedder.losses:
        raise ValueError(
            "Expected layers that add no loss of their own. Received: "
            f"{len(network.embedder.losses)} such losses in the embedder. Let "
            "the optimizer decay weights instead."
        )
    if network.memory_images and not hasattr(network.loss, "call_with_memory"):
        raise ValueError(
            "Expected PlaceSARELoss: only SARE losses take a memory. "
            f"Received: loss={network.loss}, "
            f"memory_images={network.memory_images}."
        )
    if getattr(network.loss, "reduction", None) != "sum_over_batch_size":
        raise ValueError(
            "Expected a keras.losses.Loss whose reduction is the mean over "
            f"anchors. Received: loss={network.loss}."
        )
