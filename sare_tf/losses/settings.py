"""What the settings of losses may be, by their names.

Each name has one rule, which all functions and Keras classes share.
"""

import numbers

from sare_tf.losses.registry import KERNEL_NAMES

_CHOICES = {
    "form": ("independent", "joint"),
    "kernel": tuple(sorted(KERNEL_NAMES)),
    "scaling": ("negatives", "tuples"),
}
# Name -> what the message adds.
_POSITIVE = {
    "margin": "",
    "second_margin": "",
    "inverse_bandwidth": "; 1 is the value of the paper",
}


def check(**settings) -> None:
    """Refuses settings with which no loss can work.

    Args:
        **settings: values by name. A name without a rule may have any value.

    Raises:
        ValueError: an unknown form, kernel or scaling; a margin or an inverse
            bandwidth that is not a positive, finite number; an angle that is
            not between 0 and 90 degrees; a negative number of images.
    """
    for name, value in settings.items():
        expected = _expected(name, value)
        if expected:
            raise ValueError(
                f"Expected {name} to be {expected}. Received: {name}={value!r}."
            )


def _expected(name, value) -> str | None:
    """Returns what was expected instead of a value, None if it may be so."""
    is_number = isinstance(value, numbers.Real)
    if name in _CHOICES and value not in _CHOICES[name]:
        return f"one of {list(_CHOICES[name])}"
    if name in _POSITIVE:
        if not (is_number and 0.0 < value < float("inf")):
            return f"positive and finite{_POSITIVE[name]}"
    if name == "angle_deg" and not (is_number and 0.0 < value < 90.0):
        return "between 0 and 90"
    if name == "hardest_negatives":
        if not (isinstance(value, numbers.Integral) and value >= 0):
            return "a number of images, or 0 for all"
    return None
