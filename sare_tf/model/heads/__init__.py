"""Heads of current networks: feature maps or tokens to one descriptor.

One module each: a function of tensors and of weights by name, and the layer
that holds them.
"""

from sare_tf.model.heads import (
    boq,
    class_token,
    convap,
    gem_linear,
    hard_vlad,
    mixvpr,
    netvlad_linear,
    salad,
    salad_linear,
    supervlad,
)

# Keras finds the classes that a checkpoint names once they are imported.
MODULES = (
    *(boq, class_token, convap, gem_linear, hard_vlad, mixvpr),
    *(netvlad_linear, salad, salad_linear, supervlad),
)
