"""The update rule that NetVLAD and SARE were trained with."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="sare_tf")
class CoupledSGD(keras.optimizers.Optimizer):
    """SGD with momentum as Caffe, MatConvNet and PyTorch compute it.

    m <- momentum * m + (g + weight_decay * w);  w <- w - rate * m

    `keras.optimizers.SGD` differs in two ways: its momentum holds the rate, so
    that old steps keep the old rate after a change, and its weight decay stays
    outside the momentum. Source: deepIBL, trainGaussKernalInd.m:434-439.

    Args:
        learning_rate: the rate, or a Keras schedule.
        momentum: share of the last step that is kept.
        weight_decay: of all trained weights, added to the gradient.
        **kwargs: of `keras.optimizers.Optimizer`.
    """

    def __init__(
        self, learning_rate=0.001, *, momentum=0.9, weight_decay=0.001, **kwargs
    ):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.momentum = momentum
        self.coupled_weight_decay = weight_decay

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient, variable, learning_rate):
        momentum = self.momentums[self._get_variable_index(variable)]
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        step = ops.add(
            ops.multiply(momentum, self.momentum),
            ops.add(
                gradient, ops.multiply(variable, self.coupled_weight_decay)
            ),
        )
        self.assign(momentum, step)
        self.assign_sub(variable, ops.multiply(step, rate))

    def get_config(self):
        config = super().get_config()
        config.update(
            momentum=self.momentum, weight_decay=self.coupled_weight_decay
        )
        return config
