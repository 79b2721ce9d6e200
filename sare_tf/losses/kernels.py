"""Logarithms of the similarity kernels of SARE.

A kernel turns the squared Euclidean distance d of two descriptors into a
similarity s. The losses need only log s, which neither underflows nor
overflows. All functions take and return tensors of any one shape, compute in
float32 whatever comes in, and scale d by an inverse bandwidth before anything
else; 1 is the paper's setting.

Source: Liu, Li, Dai, "Stochastic Attraction-Repulsion Embedding for Large
Scale Image Localization", ICCV 2019, section 3.
"""

from keras import ops

from sare_tf.losses import distances


def gaussian(squared_distances, *, inverse_bandwidth):
    """log exp(-b d) = -b d.

    For unit vectors d = 2 - 2 cos, so that b = 1 / (2 t) is a softmax over
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

    The gradient at d = 0, where the root has none, is 0.

    Args:
        squared_distances: d, any shape.
        inverse_bandwidth: b, a positive number.

    Returns:
        float32, the shape of `squared_distances`.
    """
    return -distances.root(_scaled(squared_distances, inverse_bandwidth))


KERNELS = {"gaussian": gaussian, "cauchy": cauchy, "exponential": exponential}


def log_kernel(squared_distances, *, kernel, inverse_bandwidth):
    """Applies the kernel of a name.

    Args:
        squared_distances: d, any shape.
        kernel: a name in `KERNELS`.
        inverse_bandwidth: b, a positive number.

    Returns:
        log s, float32, the shape of `squared_distances`.

    Raises:
        ValueError: see `check`.
    """
    check(kernel=kernel, inverse_bandwidth=inverse_bandwidth)
    return KERNELS[kernel](
        squared_distances, inverse_bandwidth=inverse_bandwidth
    )


def check(*, kernel, inverse_bandwidth):
    """Refuses settings that no loss can work with.

    Raises:
        ValueError: unknown kernel, or an inverse bandwidth that is not
            positive and finite.
    """
    if kernel not in KERNELS:
        raise ValueError(
            f"Expected kernel to be one of {sorted(KERNELS)}. "
            f"Received: kernel={kernel!r}."
        )
    if not 0.0 < inverse_bandwidth < float("inf"):
        raise ValueError(
            "Expected inverse_bandwidth to be positive and finite; 1 is the "
            f"paper's. Received: inverse_bandwidth={inverse_bandwidth}."
        )


def _scaled(squared_distances, inverse_bandwidth):
    return inverse_bandwidth * ops.cast(squared_distances, "float32")
