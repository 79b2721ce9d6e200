"""An embedder as an exported graph computes it.

The same layers and weights, in forms that TensorFlow can fuse:
batch normalisation is part of the convolution before it (`folding`), and layers
of the backbone are those of `inference_layers`.
"""

import keras
from keras import layers

from sare_tf.model import folding, inference_layers
from sare_tf.model.vit_layers import SelfAttention

_FORMS = {
    layers.Conv2D: inference_layers.FusedConv2D,
    layers.DepthwiseConv2D: inference_layers.FusedDepthwiseConv2D,
    layers.Dense: inference_layers.FusedDense,
    SelfAttention: inference_layers.FusedSelfAttention,
}


def of(embedder: keras.Model) -> keras.Model:
    """Returns a model that gives the same descriptors, up to rounding.

    Args:
        embedder: any model; its weights are shared, and it is not changed.
    """
    return _with_forms(folding.fold(embedder))


def _with_forms(network):
    if not folding.is_functional(network):
        return network

    def replace(layer):
        if folding.is_functional(layer):
            return _with_forms(layer)
        form = _FORMS.get(type(layer))
        return form(layer) if form and form.takes(layer) else layer

    return folding.cloned(network, replace)
