"""The inverse bandwidth of SARE over a run."""

import keras

from sare_tf.losses.bandwidth import InverseBandwidth
from sare_tf.training.options import TrainingOptions


def initial(options: TrainingOptions) -> float | InverseBandwidth:
    """Makes the inverse bandwidth of the loss, which may change in the run."""
    if options.learned_inverse_bandwidth:
        minimum, maximum = options.inverse_bandwidth_limits
        return InverseBandwidth(
            options.inverse_bandwidth, minimum=minimum, maximum=maximum
        )
    if options.inverse_bandwidth_to is not None:
        return InverseBandwidth(options.inverse_bandwidth, learned=False)
    return options.inverse_bandwidth


def at(epochs_done: float, options: TrainingOptions) -> float:
    """Computes a scheduled inverse bandwidth at a moment of a run.

    It changes by the same factor in each step, from `inverse_bandwidth` to
    `inverse_bandwidth_to` after `inverse_bandwidth_epochs`, and stays there.

    Args:
        epochs_done: epochs since the start of the run, with the share of the
            current one.
        options: options of training, with `inverse_bandwidth_to`.
    """
    epochs = options.inverse_bandwidth_epochs or options.epochs
    share = min(epochs_done / epochs, 1.0)
    first, last = options.inverse_bandwidth, options.inverse_bandwidth_to
    return float(first * (last / first) ** share)


def set_of(
    network: keras.Model, epochs_done: float, options: TrainingOptions
) -> None:
    """Sets a network's inverse bandwidth to its schedule, if it has one."""
    bandwidth = of(network)
    if bandwidth is not None and not bandwidth.learned:
        bandwidth.assign(at(epochs_done, options))


def measured(network: keras.Model) -> dict[str, float]:
    """Returns the inverse bandwidth of the last step by name, if it changes."""
    bandwidth = of(network)
    if bandwidth is None:
        return {}
    value = keras.ops.convert_to_numpy(bandwidth.value)
    return {"inverse_bandwidth": round(float(value), 6)}


def of(network: keras.Model) -> InverseBandwidth | None:
    """Returns the inverse bandwidth of a network's loss, if it changes."""
    found = getattr(network.loss, "inverse_bandwidth", None)
    return found if isinstance(found, InverseBandwidth) else None
