"""What a dataset is, and reading one from disk."""

import lazy_loader

# Loaded when first used: options and names need no TensorFlow.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
