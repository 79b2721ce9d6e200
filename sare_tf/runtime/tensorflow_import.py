"""TensorFlow's import for commands that only run an export.

TensorFlow imports Keras at its end, and SciPy and h5py in a copy of an old
Keras. It does without each of them where they are not installed
(tensorflow/__init__.py and tensorflow/python/keras), and a model that was
exported needs none.
"""

import contextlib
import ctypes
import importlib.util
import os
import sys
import threading

_NOT_NEEDED = ("keras.src", "scipy", "h5py")
# TensorFlow's libraries on Linux, of a gigabyte, in the order that they need.
_LIBRARIES = ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2")


def without_keras() -> None:
    """Imports TensorFlow without Keras, SciPy and h5py.

    For this one import, they are made to look as if they were not installed;
    they can still be imported afterwards. Nothing happens if TensorFlow or
    Keras is imported already. While the system loads TensorFlow's libraries,
    pandas is imported, which everything that searches needs.
    """
    if "tensorflow" in sys.modules or "keras" in sys.modules:
        return
    loading = threading.Thread(target=_load_libraries)
    loading.start()
    import pandas  # noqa: F401

    loading.join()
    hidden = [name for name in _NOT_NEEDED if name not in sys.modules]
    # An import of a name that is None fails (Python's import system, 5.3.1).
    sys.modules.update(dict.fromkeys(hidden))
    try:
        import tensorflow  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]


def _load_libraries() -> None:
    """Loads TensorFlow's libraries, without the lock of the interpreter.

    An import of an extension holds that lock; a call of a C function does not.
    What cannot be loaded here is loaded by TensorFlow's import.
    """
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        return
    with contextlib.suppress(AttributeError, OSError, TypeError):
        open_library = ctypes.CDLL(None).dlopen
        open_library.argtypes = [ctypes.c_char_p, ctypes.c_int]
        open_library.restype = ctypes.c_void_p
        for name in _LIBRARIES:
            path = os.path.join(os.path.dirname(spec.origin), name)
            if os.path.isfile(path):
                open_library(os.fsencode(path), os.RTLD_NOW)
