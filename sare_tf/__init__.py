"""Image localisation by retrieval, in TensorFlow."""

import lazy_loader

__version__ = "0.1.0"

# Loaded when first used, so that a stage that needs neither Keras nor the
# network does not pay for them.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
