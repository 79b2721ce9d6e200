"""Modules that are called like a function.

A stage such as `sare_tf.export` is a module, with `run` and `main`. Where the
stage also exists as a function of Python objects, the module itself is that
function, so that both have the name which users know:

    sare_tf.export(embedder, "runs/mine/export", height=480, width=640)
    sare_tf.export.run(options)
"""

import sys
import types
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


class CallableModule(types.ModuleType, Generic[_P, _R]):
    """A module whose call is the call of one of its functions.

    Attributes:
        __wrapped__: the function; `inspect.signature` of the module follows it.
    """

    __wrapped__: Any

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return self.__wrapped__(*args, **kwargs)


def make_callable(
    name: str, function: Callable[_P, _R]
) -> CallableModule[_P, _R]:
    """Makes a loaded module callable.

    Args:
        name: name of the module: its own `__name__`.
        function: the function to call.

    Returns:
        The module.
    """
    module: Any = sys.modules[name]
    module.__class__ = CallableModule
    module.__wrapped__ = function
    return module
