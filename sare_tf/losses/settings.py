"""What the settings of losses may be, by their names.

Each name has one rule, which all functions and Keras classes share.
"""

import math
import numbers

from sare_tf.losses.registry import KERNEL_NAMES, MINER_NAMES

_CHOICES = {
    "form": ("independent", "joint"),
    "kernel": tuple(sorted(KERNEL_NAMES)),
    "miner": MINER_NAMES,
    "scaling": ("negatives", "tuples"),
}
# Name -> what the message adds.
_POSITIVE = {
    "margin": "",
    "second_margin": "",
    "alpha": "",
    "beta": "",
    "scale": "",
    "temperature": "",
    "minimum": "",
    "maximum": "",
    "inverse_bandwidth": "; 1 is the value of the paper",
}
# Name -> the least number, and what the message says of it.
_COUNTS = {
    "hardest_negatives": (0, "a number of images, or 0 for all"),
    "num_bins": (2, "a number of bins, 2 or more"),
    "num_places": (2, "a number of places, 2 or more"),
}


def check(**settings) -> None:
    """Refuses settings with which no loss can work.

    Args:
        **settings: values by name. A name without a rule may have any value.

    Raises:
        ValueError: an unknown form, kernel, miner or scaling; a margin, factor,
            temperature or inverse bandwidth that is not a positive, finite
            number; an angle that is not between 0 and 90 degrees; a number of
            images, bins or places that is too small.
    """
    for name, value in settings.items():
        expected = _expected(name, value)
        if expected:
            raise ValueError(
                f"Expected {name} to be {expected}. Received: {name}={value!r}."
            )


def _expected(name, value) -> str | None:
    """Returns what was expected instead of a value, None if it may be so."""
    if name == "inverse_bandwidth" and hasattr(value, "assign"):
        return None  # an InverseBandwidth
    is_number = isinstance(value, numbers.Real)
    if name in _CHOICES and value not in _CHOICES[name]:
        return f"one of {list(_CHOICES[name])}"
    if name in _POSITIVE:
        if not (is_number and 0.0 < value < float("inf")):
            return f"positive and finite{_POSITIVE[name]}"
    if name == "angle_deg" and not (is_number and 0.0 < value < 90.0):
        return "between 0 and 90"
    if name == "base" and not (is_number and math.isfinite(value)):
        return "a finite number"
    if name in _COUNTS:
        least, meaning = _COUNTS[name]
        if not (isinstance(value, numbers.Integral) and value >= least):
            return meaning
    return None
