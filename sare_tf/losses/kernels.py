"""Logarithms of the similarity kernels of SARE.

A kernel turns the squared Euclidean distance d of two descriptors into a
similarity s. The losses need only log s, which neither underflows nor
overflows. Every function scales d by an inverse bandwidth (1 in the paper),
computes in float32 for any input type, and returns the shape of its input.

Source: Liu, Li, Dai, "Stochastic Attraction-Repulsion Embedding for Large
Scale Image Localization", ICCV 2019, section 3.
"""

from keras import ops

from sare_tf.losses import distances, settings


def gaussian(squared_distances, *, inverse_bandwidth):
    """log exp(-b d) = -b d.

    For unit vectors d = 2 - 2 cos, so b = 1 / (2 t) gives a softmax over
    cosines with temperature t.

    Args:
        squared_distances: d, any shape.
        inverse_bandwidth: b, a positive number.

    Returns:
        float32, the shape of `squared_distances`.
    """
    return -_scaled(squared_distances, inverse_bandwidth)


def cauchy(squared_distances, *, inverse_bandwidth):
    """log 1 / (1 + b d) = -log(1 + b d).

    Args:
        squared_distances: d, any shape.
        inverse_bandwidth: b, a positive number.

    Returns:
        float32, the shape of `squared_distances`.
    """
    return -ops.log1p(_scaled(squared_distances, inverse_bandwidth))


def exponential(squared_distances, *, inverse_bandwidth):
    """log exp(-sqrt(b d)) = -sqrt(b d).

    The gradient at d = 0, where the root is not differentiable, is 0.

    Args:
        squared_distances: d, any shape.
        inverse_bandwidth: b, a positive number.

    Returns:
        float32, the shape of `squared_distances`.
    """
    return -distances.root(_scaled(squared_distances, inverse_bandwidth))


KERNELS = {"gaussian": gaussian, "cauchy": cauchy, "exponential": exponential}


def log_kernel(squared_distances, *, kernel, inverse_bandwidth):
    """Returns the logarithm of a kernel, chosen by its name.

    Args:
        squared_distances: d, any shape.
        kernel: a name in `KERNELS`.
        inverse_bandwidth: b, a positive number, or an `InverseBandwidth`.

    Returns:
        log s, float32, the shape of `squared_distances`.

    Raises:
        ValueError: an unknown kernel, or an inverse bandwidth that is not
            positive and finite.
    """
    settings.check(kernel=kernel, inverse_bandwidth=inverse_bandwidth)
    return KERNELS[kernel](
        squared_distances, inverse_bandwidth=inverse_bandwidth
    )


def _scaled(squared_distances, inverse_bandwidth):
    if callable(inverse_bandwidth):
        return inverse_bandwidth(squared_distances)
    return inverse_bandwidth * ops.cast(squared_distances, "float32")
