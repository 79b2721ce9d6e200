"""What may be compiled as a metric of descriptors."""

import keras


def refuse_accuracy(model: keras.Model) -> None:
    """Refuses accuracies of classes, which descriptors do not have.

    Args:
        model: a compiled model of descriptors.

    Raises:
        ValueError: "accuracy" or another accuracy of Keras among its metrics.
    """
    # `get_compile_config` also serialises the optimizer, impossible in a graph.
    config = model._compile_config.config
    for kind in ("metrics", "weighted_metrics"):
        for metric in keras.tree.flatten(config.get(kind)):
            name = _name_of_keras(metric).lower()
            if name == "acc" or "accuracy" in name:
                raise ValueError(
                    f"Expected no accuracy in {kind}: descriptors are not "
                    f"scores of classes. Received: {metric!r}. Measure recall "
                    "with sare_tf.evaluate_descriptors, or compile without it."
                )


def _name_of_keras(metric) -> str:
    """The name of a metric of Keras, "" for metrics of others."""
    if isinstance(metric, str):
        return metric
    kind = metric if hasattr(metric, "__name__") else type(metric)
    return kind.__name__ if kind.__module__.startswith("keras.") else ""
