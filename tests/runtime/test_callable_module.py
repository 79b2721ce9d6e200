"""A stage is a module and a function under one name."""

import inspect
import sys
import types

import pytest

from sare_tf.runtime import callable_module


def add(first, *, second=1):
    """Adds."""
    return first + second


@pytest.fixture
def module(monkeypatch):
    module = types.ModuleType("adding", "Two ways to add.")
    module.run = "the stage"
    monkeypatch.setitem(sys.modules, "adding", module)
    assert callable_module.make_callable("adding", add) is module
    return module


def test_the_call_is_that_of_the_function(module):
    import adding

    assert adding(2) == 3
    assert adding(2, second=5) == 7
    with pytest.raises(TypeError, match="third"):
        adding(2, third=3)
    assert inspect.signature(adding) == inspect.signature(add)


def test_it_stays_a_module(module):
    assert inspect.ismodule(module)
    assert (module.run, module.__doc__) == ("the stage", "Two ways to add.")
