"""Every Keras loss is documented and signed in full."""

import inspect

import keras
import pytest

from sare_tf import losses

CLASSES = [
    value
    for value in (getattr(losses, name) for name in losses.__all__)
    if isinstance(value, type) and issubclass(value, keras.losses.Loss)
]


@pytest.mark.parametrize("loss", CLASSES)
def test_the_docstring_is_complete(loss):
    text = inspect.getdoc(loss)
    assert "{{" not in text
    sections = ["Args:", "Call arguments:", "Output shape:", "Example:"]
    order = [text.index(f"\n{section}\n") for section in sections]
    assert text.index("Source: ") < order[0]
    assert order == sorted(order)
    arguments = text[order[0] : order[1]]
    for name, parameter in inspect.signature(loss).parameters.items():
        stars = "**" * (parameter.kind is parameter.VAR_KEYWORD)
        assert f"\n    {stars}{name}: " in arguments


def test_each_class_is_documented_by_its_own_formula():
    assert "max(d_p - d_i + margin, 0)" in losses.TripletLoss.__doc__
    assert "cross-entropy" in losses.PlaceNPairsLoss.__doc__.lower()
    assert "losses.AngularLoss()" in losses.AngularLoss.__doc__


@pytest.mark.parametrize("loss", CLASSES)
def test_settings_are_attributes(loss):
    if loss is losses.SimilarityLoss:
        pytest.skip("needs TensorFlow Similarity, and keeps its settings")
    needed = {"num_places": 5} if loss is losses.PlaceCosFaceLoss else {}
    built = loss(**needed)
    config = built.get_config()
    names = set(inspect.signature(loss).parameters) - {"dtype", "kwargs"}
    assert set(config) == names
    for name in names:
        assert getattr(built, name) == config[name]
