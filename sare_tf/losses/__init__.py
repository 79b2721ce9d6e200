"""Losses over descriptors: over tuples, and over place batches."""

import lazy_loader

# Loaded when first used: what only needs the names of losses needs no Keras.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
