"""How a function of descriptors becomes a Keras loss.

A class of `tuple_losses` or `place_losses` names its function and its settings;
checks, configuration, registration and documentation come from here.
"""

import inspect
from collections.abc import Callable
from typing import TypeVar

import keras
from keras import ops

from sare_tf.losses import distances, place_labels, settings

Reduction = str | None
DType = str | keras.DTypePolicy | None


class DescriptorLoss(keras.losses.Loss):
    """A Keras loss that computes its `function` with its settings.

    Subclasses state their settings in the signature of their constructor, and
    `call`. Each setting is an attribute, and is in the configuration.

    Args:
        reduction: how Keras reduces [B].
        name: of the loss.
        dtype: of the returned values.
        **loss_settings: values by name; see `settings.check`.
    """

    function: Callable
    # The layer whose weights a network trains with the loss, if it has one.
    layer: keras.layers.Layer | None = None

    def __init__(
        self, *, reduction: Reduction, name: str, dtype: DType, **loss_settings
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        settings.check(**loss_settings)
        self._setting_names = tuple(loss_settings)
        for setting, value in loss_settings.items():
            setattr(self, setting, value)
            if isinstance(value, keras.layers.Layer):
                self.layer = value

    def _settings(self) -> dict:
        """The settings by name."""
        return {name: getattr(self, name) for name in self._setting_names}

    def get_config(self):
        return {
            **super().get_config(),
            **{
                name: keras.saving.serialize_keras_object(value)
                if isinstance(value, keras.layers.Layer)
                else value
                for name, value in self._settings().items()
            },
        }

    @classmethod
    def from_config(cls, config):
        return cls(
            **{
                name: keras.saving.deserialize_keras_object(value)
                if isinstance(value, dict)
                else value
                for name, value in config.items()
            }
        )


class TupleLoss(DescriptorLoss):
    """A loss over tuples whose function takes descriptors, [B, T, D]."""

    documentation = """reduction: how Keras reduces [B]; by default to the mean.
    name: of the loss.
    dtype: of the returned values.

Call arguments:
    y_true: ignored.
    y_pred: descriptors of unit length, [B, T, D]; checked as in `SARELoss`.

Output shape:
    [B] from `call`; reduced as `reduction` says from `__call__`.

Example:

```python
model = sare_tf.over_tuples(embedder)
model.compile(optimizer="sgd", loss=sare_tf.losses.{name}())
```"""

    def call(self, y_true, y_pred):
        distances.check_unit_length(y_pred)
        return self.function(y_pred, **self._settings())


class TupleDistanceLoss(TupleLoss):
    """A loss over tuples whose function takes squared distances.

    They are those of the query to the positive, [B], and to the negatives,
    [B, N].
    """

    def call(self, y_true, y_pred):
        distances.check_unit_length(y_pred)
        return self.function(
            *distances.tuple_distances(y_pred), **self._settings()
        )


class PlaceLoss(DescriptorLoss):
    """A loss over place batches: its function takes labels and descriptors.

    Keras casts labels to the type of the loss, in which large ones become
    equal. So the places are numbered before.
    """

    documentation = """reduction: how Keras reduces [B]; by default to the mean.
    name: of the loss.
    dtype: of the returned values.

Call arguments:
    y_true: labels of places, [B] or [B, 1]: integers, compared exactly, or
        floating-point numbers below 2 ** 24; see `place_labels`.
    y_pred: descriptors, [B, D]; unit length is expected, not checked.

Output shape:
    [B] from `call`; reduced as `reduction` says from `__call__`.

Example:

```python
embedder.compile(optimizer="sgd", loss=sare_tf.losses.{name}())
embedder.fit(images, labels)
```"""

    def __call__(self, y_true, y_pred, sample_weight=None):
        if not hasattr(y_pred, "shape"):
            y_pred = ops.convert_to_tensor(y_pred)
        labels, y_pred = place_labels.checked(y_true, y_pred)
        digits = place_labels.to_digits(place_labels.numbers(labels))
        return super().__call__(digits, y_pred, sample_weight)

    def call(self, y_true, y_pred):
        labels = place_labels.from_digits(y_true)
        return self.function(labels, y_pred, **self._settings())


class PlacePairLoss(PlaceLoss):
    """A loss over place batches whose positive pairs may have weights."""

    def call_with_weights(self, y_true, y_pred, *, positive_weights):
        """Computes the loss with weights of the positive pairs.

        Args:
            y_true: labels of the batch, [B] or [B, 1].
            y_pred: descriptors of the batch, [B, D].
            positive_weights: weight of each pair if it is a positive, [B, B],
                of at least 0.

        Returns:
            Loss per anchor, float32 [B].
        """
        labels = place_labels.from_digits(y_true)
        return self.function(
            labels,
            y_pred,
            positive_weights=positive_weights,
            **self._settings(),
        )


LossClass = TypeVar("LossClass", bound=type[DescriptorLoss])


def loss_of(function: Callable) -> Callable[[LossClass], LossClass]:
    """Makes a class the Keras loss of a function, and registers it.

    In the docstring of the class, "{{formula}}" becomes what the function's
    docstring says before its arguments, and "{{keras_arguments}}" what all
    losses of that kind have in common.

    Args:
        function: of descriptors, or of distances, and of the settings.

    Returns:
        A decorator of classes.
    """

    def decorate(loss: LossClass) -> LossClass:
        loss.function = staticmethod(function)
        if loss.__doc__:  # None with `python -OO`
            formula = inspect.getdoc(function).partition("\n\nArgs:")[0]
            shared = loss.documentation.format(name=loss.__name__)
            loss.__doc__ = (
                inspect.cleandoc(loss.__doc__)
                .replace("{{formula}}", formula)
                .replace("{{keras_arguments}}", shared)
            )
        return keras.saving.register_keras_serializable("sare_tf")(loss)

    return decorate
