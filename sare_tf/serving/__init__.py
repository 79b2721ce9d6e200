"""An export as a callable: in this process, or on a TF Serving."""

import lazy_loader

# Loaded when first used: its options need no TensorFlow.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
