"""The network: images to descriptors."""

import lazy_loader

# Loaded when first used: what only needs names of backbones needs no Keras.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
