"""TensorFlow's import without Keras, for commands that only run an export."""

import sys


def without_keras() -> None:
    """Imports TensorFlow, but not Keras, which takes a third of the time.

    TensorFlow imports Keras at its end, and does without it where it is not
    installed (tensorflow/__init__.py). For this one import, Keras is made to
    look as if it were not; it can still be imported afterwards. Nothing happens
    if either is imported already.
    """
    if "tensorflow" in sys.modules or "keras" in sys.modules:
        return
    # An import of a name that is None fails (Python's import system, 5.3.1).
    sys.modules["keras.src"] = None
    try:
        import tensorflow  # noqa: F401
    finally:
        del sys.modules["keras.src"]
