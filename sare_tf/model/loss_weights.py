"""Weights of a loss, which a network trains and saves with its own."""

import keras


class TrainsLossWeights:
    """Trains the weights of its loss, too; a base beside keras.Model.

    They lie in a layer, the `layer` of the loss, which becomes one of the
    network's. The optimizer does not decay them. The network has a layer named
    "embedder", whose descriptors the loss takes.

    Attributes:
        loss_layer: the layer; None if the loss has none.
    """

    loss_layer = None

    def compile(self, *args, **kwargs):
        super().compile(*args, **kwargs)
        layer = getattr(self.loss, "layer", None)
        # An attribute, so that Keras trains and saves its weights.
        self.loss_layer = layer
        if layer is None:
            return
        if not layer.built:
            length = self.get_layer("embedder").output_shape[-1]
            layer.build((None, length))
        if not self.optimizer.built:
            self.optimizer.exclude_from_weight_decay(
                var_list=layer.trainable_variables
            )

    def compile_from_config(self, config):
        # Keras does not compile a model that overrides `compile`.
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)
