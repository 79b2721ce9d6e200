"""Update rules, the rate over a run, and the average of the weights.

The average follows Keras: after each step a <- m * a + (1 - m) * w, from the
weights after the first step. It lies in the optimizer's state while training
moves the weights themselves.
"""

import contextlib
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from sare_tf.training.divergence import Diverged


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
        weight_decay: decay of all trained weights, added to the gradient.
        **kwargs: arguments of `keras.optimizers.Optimizer`.
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
        if self._use_weight_decay(variable):
            gradient = ops.add(
                gradient, ops.multiply(variable, self.coupled_weight_decay)
            )
        step = ops.add(ops.multiply(momentum, self.momentum), gradient)
        self.assign(momentum, step)
        self.assign_sub(variable, ops.multiply(step, rate))

    def get_config(self):
        config = super().get_config()
        config.update(
            momentum=self.momentum, weight_decay=self.coupled_weight_decay
        )
        return config


def build(
    name: str,
    *,
    learning_rate: float,
    weight_decay: float,
    averaging_momentum: float = 0.0,
) -> keras.optimizers.Optimizer:
    """Makes an optimizer by its name.

    Args:
        name: "sgd", `CoupledSGD`, or "adam", Keras's AdamW.
        learning_rate: the rate at first.
        weight_decay: decay of all trained weights.
        averaging_momentum: momentum of the average of the weights; 0: none.

    Returns:
        An optimizer that was not built yet.

    Raises:
        ValueError: unknown name.
    """
    rules = {"adam": keras.optimizers.AdamW, "sgd": CoupledSGD}
    if name not in rules:
        raise ValueError(
            f"Expected an optimizer of {', '.join(rules)}. Received: "
            f"name={name!r}."
        )
    averaging = {}
    if averaging_momentum:
        averaging = {"use_ema": True, "ema_momentum": averaging_momentum}
    return rules[name](learning_rate, weight_decay=weight_decay, **averaging)


def rate_at(
    epochs_done: float,
    *,
    schedule: str,
    learning_rate: float,
    epochs: int,
    warmup_epochs: int,
    halve_every: int,
) -> float:
    """Computes the learning rate at a moment of a run.

    Args:
        epochs_done: epochs since the start of the run, with the share of the
            current one.
        schedule: "halving", half as much after every `halve_every` epochs, or
            "cosine", from the whole rate down to 0 at the end of the run.
        learning_rate: the whole rate.
        epochs: epochs of the run.
        warmup_epochs: epochs in which the rate first rises from 0, linearly.
        halve_every: epochs until the rate is halved; 0: never.
    """
    if schedule == "cosine":
        decay = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup_epochs else learning_rate,
            decay_steps=epochs - warmup_epochs,
            warmup_target=learning_rate if warmup_epochs else None,
            warmup_steps=warmup_epochs,
        )
        return float(decay(epochs_done))
    if epochs_done < warmup_epochs:
        return learning_rate * epochs_done / warmup_epochs
    halvings = int(epochs_done) // halve_every if halve_every else 0
    return learning_rate * 0.5**halvings


class KeepWeights(keras.callbacks.Callback):
    """Keeps `fit` from replacing the weights by their average.

    `fit` does so when it ends, and forgets the weights. Training that calls it
    several times would start from the average each time.
    """

    def on_epoch_end(self, epoch, logs=None):
        if self.model.optimizer.use_ema:
            self._weights = [
                ops.convert_to_numpy(variable)
                for variable in self.model.trainable_variables
            ]

    def on_train_end(self, logs=None):
        if self.model.optimizer.use_ema:
            for variable, weight in zip(
                self.model.trainable_variables, self._weights, strict=True
            ):
                variable.assign(weight)


def exchange_average(network: keras.Model) -> None:
    """Exchanges the weights and their average, exactly.

    Calling it twice restores the original state. Without an average, or before
    the first step, nothing happens. Keras's `SwapEMAWeights` adds and
    subtracts, which rounds.

    Args:
        network: compiled, with an optimizer that was built.
    """
    optimizer = network.optimizer
    steps = int(ops.convert_to_numpy(optimizer.iterations))
    if not optimizer.use_ema or not steps:
        return
    for variable, average in zip(
        network.trainable_variables,
        optimizer._model_variables_moving_average,
        strict=True,
    ):
        weight = ops.convert_to_numpy(variable)
        variable.assign(ops.convert_to_numpy(average))
        average.assign(weight)


@contextlib.contextmanager
def averaged(network: keras.Model) -> Iterator[None]:
    """Gives the network the average of its weights, if any, within a block."""
    exchange_average(network)
    try:
        yield
    finally:
        exchange_average(network)


def check_weights(network: keras.Model) -> None:
    """Refuses weights that are not finite.

    A gradient that is not finite shows in the weights before the loss.

    Raises:
        Diverged: names the weight.
    """
    for variable in network.trainable_variables:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise Diverged(
                "Expected finite weights. Received: a value that is not, in "
                f"{variable.path}. The last checkpoint is untouched; lower "
                "--learning_rate, and run the command again."
            )
