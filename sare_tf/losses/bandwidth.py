"""An inverse bandwidth of SARE that changes in training."""

import math

import keras
from keras import ops

from sare_tf.losses import settings


@keras.saving.register_keras_serializable(package="sare_tf")
class InverseBandwidth(keras.layers.Layer):
    """Scales squared distances by an inverse bandwidth b that changes.

    Give it to a SARE loss as its `inverse_bandwidth`. Where it is learned, the
    network trains it along with its own weights, be it over places
    (`PlaceNetwork`) or over tuples (`over_tuples`):

        b = minimum * (maximum / minimum) ** sigmoid(u)

    with the trainable weight u, so b stays between its limits, and its
    gradient does not end there. Otherwise training sets it with `assign`, from
    a schedule. Either way it is saved with the network.

    A SARE loss can become smaller by a larger b alone, without better
    descriptors: limit it, and look at the recall rather than at the loss.

    Source: a learned scale as in Radford et al., "Learning Transferable Visual
    Models From Natural Language Supervision", ICML 2021, section 2.5, where it
    is clipped; b is 1 / (2 t) of a temperature t.

    Args:
        initial: b at first.
        learned: whether b is trained; if not, it is set.
        minimum: lower limit of a learned b, below `initial`.
        maximum: upper limit of a learned b, above `initial`.
        **kwargs: passed on to `keras.layers.Layer`.

    Call arguments:
        squared_distances: any shape.

    Input and output shape:
        any, the same; float32.

    Example:

    ```python
    loss = sare_tf.PlaceSARELoss(
        inverse_bandwidth=sare_tf.losses.InverseBandwidth(10.0)
    )
    network = sare_tf.PlaceNetwork(embedder)
    network.compile("adam", loss=loss)
    ```
    """

    def __init__(
        self, initial, *, learned=True, minimum=0.5, maximum=100.0, **kwargs
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        settings.check(inverse_bandwidth=initial, minimum=minimum)
        settings.check(maximum=maximum)
        if learned and not minimum < initial < maximum:
            raise ValueError(
                "Expected an inverse bandwidth between its limits. Received: "
                f"inverse_bandwidth={initial}, minimum={minimum}, "
                f"maximum={maximum}."
            )
        self.initial = initial
        self.learned = learned
        self.minimum = minimum
        self.maximum = maximum
        self.position = self.add_weight(
            name="position",
            shape=(),
            initializer=keras.initializers.Constant(self._position(initial)),
            trainable=learned,
            # Set to the same on all replicas.
            aggregation="none" if learned else "only_first_replica",
        )
        self.built = True

    @property
    def value(self):
        """b, float32 []."""
        if not self.learned:
            return ops.convert_to_tensor(self.position)
        share = ops.sigmoid(self.position)
        return self.minimum * ops.exp(share * self._span)

    @property
    def _span(self) -> float:
        return math.log(self.maximum / self.minimum)

    def _position(self, value: float) -> float:
        """What the weight is for a value."""
        if not self.learned:
            return value
        share = math.log(value / self.minimum) / self._span
        return math.log(share / (1.0 - share))

    def assign(self, value: float) -> None:
        """Sets b, which is not learned.

        Raises:
            ValueError: b is learned.
        """
        if self.learned:
            raise ValueError(
                "Expected an inverse bandwidth that is not learned, to set it. "
                "Received: learned=True."
            )
        self.position.assign(value)

    def build(self, input_shape):
        del input_shape

    def call(self, squared_distances):
        return self.value * ops.cast(squared_distances, "float32")

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "initial": self.initial,
            "learned": self.learned,
            "minimum": self.minimum,
            "maximum": self.maximum,
        }
