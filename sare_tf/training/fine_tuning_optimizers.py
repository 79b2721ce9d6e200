"""Update rules in which each weight has its own rate, and a start to decay to.

Factors on the rate are those of the layers, see `rate_factors`. They scale
weight decay as well, as groups of parameters do in PyTorch.

With `l2_to_start`, the first weights, those of the backbone, decay towards the
values with which the optimizer was built, and not towards 0. Source: L2-SP of
Li, Grandvalet, Davoine, "Explicit Inductive Bias for Transfer Learning with
Convolutional Networks", ICML 2018, equation 2. AdamW decays apart from the
gradient here, too.
"""

from collections.abc import Sequence

import keras
from keras import ops

from sare_tf.training import optimizers
from sare_tf.training.optimizers import CoupledSGD


class _OwnRates(keras.optimizers.Optimizer):
    """What both update rules share.

    Args:
        *args: arguments of the update rule.
        rate_factors: factor on the rate of each weight, in their order; 1 for
            further weights.
        l2_to_start: decay of the first weights towards their start.
        num_pulled: number of the weights that decay towards their start.
        **kwargs: arguments of the update rule.
    """

    def __init__(
        self, *args, rate_factors=(), l2_to_start=0.0, num_pulled=0, **kwargs
    ):
        super().__init__(*args, **kwargs)
        self.rate_factors = tuple(rate_factors)
        self.l2_to_start = l2_to_start
        self.num_pulled = num_pulled if l2_to_start else 0

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        pulled = variables[: self.num_pulled]
        # A resumed run loads them after.
        self.starts = self.add_optimizer_variables(pulled, "start")
        for start, variable in zip(self.starts, pulled, strict=True):
            start.assign(ops.convert_to_numpy(variable))

    def _factor(self, variable):
        index = self._get_variable_index(variable)
        return self.rate_factors[index] if index < len(self.rate_factors) else 1

    def _distance(self, variable):
        """Returns a pulled weight minus its start; None for others."""
        index = self._get_variable_index(variable)
        if index >= self.num_pulled:
            return None
        return ops.subtract(variable, self.starts[index])

    def _use_weight_decay(self, variable):
        if self._get_variable_index(variable) < self.num_pulled:
            return False
        return super()._use_weight_decay(variable)

    def get_config(self):
        return {
            **super().get_config(),
            "rate_factors": list(self.rate_factors),
            "l2_to_start": self.l2_to_start,
            "num_pulled": self.num_pulled,
        }


@keras.saving.register_keras_serializable(package="sare_tf")
class FineTuningSGD(_OwnRates, CoupledSGD):
    """`CoupledSGD` with a rate per weight; the start is in the gradient."""

    def update_step(self, gradient, variable, learning_rate):
        distance = self._distance(variable)
        if distance is not None:
            gradient = ops.add(
                gradient, ops.multiply(distance, self.l2_to_start)
            )
        rate = ops.multiply(learning_rate, self._factor(variable))
        super().update_step(gradient, variable, rate)


@keras.saving.register_keras_serializable(package="sare_tf")
class FineTuningAdamW(_OwnRates, keras.optimizers.AdamW):
    """Keras's AdamW with a rate per weight, also of the decay."""

    def _apply_weight_decay(self, variables):
        # Keras would decay all weights at one rate; `update_step` does it.
        del variables

    def update_step(self, gradient, variable, learning_rate):
        rate = ops.cast(
            ops.multiply(learning_rate, self._factor(variable)), variable.dtype
        )
        distance, decay = self._distance(variable), self.l2_to_start
        if distance is None:
            distance, decay = variable, self.weight_decay
            if not decay or not self._use_weight_decay(variable):
                decay = 0.0
        if decay:
            self.assign_sub(
                variable, ops.multiply(distance, ops.multiply(rate, decay))
            )
        super().update_step(gradient, variable, rate)


def build(
    name: str,
    *,
    learning_rate: float,
    weight_decay: float,
    averaging_momentum: float = 0.0,
    rate_factors: Sequence[float] = (),
    l2_to_start: float = 0.0,
    num_pulled: int = 0,
) -> keras.optimizers.Optimizer:
    """Makes an optimizer by its name, see `optimizers.build`.

    Args:
        name: "sgd" or "adam".
        learning_rate: the rate at first, before factors.
        weight_decay: decay of trained weights.
        averaging_momentum: momentum of the average of the weights; 0: none.
        rate_factors: factor on the rate of each weight, in their order.
        l2_to_start: decay of the first weights towards their start.
        num_pulled: number of these weights.

    Raises:
        ValueError: unknown name.
    """
    plain = optimizers.build(
        name,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        averaging_momentum=averaging_momentum,
    )
    if not l2_to_start and set(rate_factors) <= {1.0}:
        return plain
    own_rates = {"adam": FineTuningAdamW, "sgd": FineTuningSGD}[name]
    return own_rates.from_config(
        {
            **plain.get_config(),
            "rate_factors": list(rate_factors),
            "l2_to_start": l2_to_start,
            "num_pulled": num_pulled,
        }
    )
