"""Image localisation by retrieval, in TensorFlow."""

import sys

import lazy_loader

__version__ = "0.1.0"

# For `python -m sare_tf.<stage>`, Python first imports the package and sets
# argv[0] to "-m" meanwhile. The stage then imports TensorFlow.
if sys.argv[:1] == ["-m"]:
    from sare_tf import flags

    flags.before_stage(sys.orig_argv)

# Loaded when first used, so that a stage that needs neither Keras nor the
# network does not pay for them.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
