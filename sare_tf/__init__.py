"""Image localisation by retrieval, in TensorFlow."""

import importlib

__version__ = "0.1.0"

# Loaded when first used, so that a stage that needs neither Keras nor the
# model does not pay for them.
_HOME = {
    "Augmentation": "sare_tf.model.augmentation",
    "NetVLAD": "sare_tf.model.netvlad",
    "build_embedder": "sare_tf.model.embedder",
    "over_tuples": "sare_tf.model.embedder",
    "SARELoss": "sare_tf.losses",
    "PlaceSARELoss": "sare_tf.losses",
    "PlaceNetwork": "sare_tf.training.place_network",
    "tuple_dataset": "sare_tf.training.datasets",
    "tuple_record_dataset": "sare_tf.training.datasets",
    "place_dataset": "sare_tf.training.datasets",
    "losses": None,
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'sare_tf' has no attribute {name!r}")
    home = _HOME[name]
    if home is None:
        return importlib.import_module(f"sare_tf.{name}")
    return getattr(importlib.import_module(home), name)
