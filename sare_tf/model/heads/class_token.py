"""The class token of a vision transformer as descriptor.

With the backbone `dinov2_vitb14_reg_implicit`, the tokens that gather the image
in its place, one after the other: the descriptors of ImAge.
"""

import keras
from keras import ops

from sare_tf.model.aggregation import Aggregation, unit_length


@keras.saving.register_keras_serializable(package="sare_tf")
class UnitClassToken(Aggregation):
    """The class token at unit length; the locations are not used.

    See the module for the tokens of ImAge.

    Call arguments:
        features: feature maps.
        class_token: of the whole image.

    Input shape:
        [B, H, W, C], and [B, C].

    Output shape:
        [B, C], float32 under every dtype policy.
    """

    def call(self, features, class_token):
        del features
        return unit_length(ops.cast(class_token, "float32"), clamped=True)

    def compute_output_spec(self, features, class_token):
        del features
        return keras.KerasTensor(class_token.shape, dtype="float32")
