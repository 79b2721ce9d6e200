"""The public API: its names, its signatures, and what its import costs.

`tests/kept/api.txt` holds what users can rely on. After an intended change,
write it again and read the difference, and `make api`:

    PYTHONPATH=. .venv/bin/python tests/test_api.py
"""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

import sare_tf

KEPT = Path(__file__).with_name("kept") / "api.txt"
# Modules of which more is promised: what they load lazily, or these members.
MEMBERS = {
    "losses": None,
    "manifest": ("make", "read", "write"),
    "metrics": ("first_rank", "hits", "recall_at", "within"),
    "protocols": ("choose", "describe"),
    "serving": None,
}


def signature(value) -> str:
    """Names, kinds and defaults; not the types, which Python words anew."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(value).parameters.values()
    ]
    return str(inspect.Signature(parameters))


def describe(name: str, value) -> list[str]:
    if inspect.ismodule(value) and not callable(value):
        return [f"{name}: module"]
    if not callable(value):
        return [f"{name}: value"]
    lines = [f"{name}{signature(value)}"]
    if inspect.isclass(value):
        # Methods of its own, not those that Keras defines.
        lines += [
            f"{name}.{method}{signature(getattr(value, method))}"
            for method in sorted(vars(value))
            if not method.startswith("_")
            and callable(getattr(value, method))
            and not any(hasattr(base, method) for base in value.__mro__[1:])
        ]
    return lines


def render() -> str:
    lines = []
    for name in sorted(dir(sare_tf)):
        value = getattr(sare_tf, name)
        lines += describe(name, value)
        if name in MEMBERS:
            for member in MEMBERS[name] or sorted(value.__all__):
                lines += describe(f"{name}.{member}", getattr(value, member))
    return "\n".join(lines) + "\n"


def test_names_and_signatures_are_as_promised():
    assert render() == KEPT.read_text(encoding="utf-8"), __doc__


@pytest.mark.parametrize("name", sare_tf.__all__)
def test_every_name_is_explained(name):
    value = inspect.unwrap(getattr(sare_tf, name))
    first, *rest = inspect.getdoc(value).splitlines()
    assert first.endswith((".", ":"))
    assert len(first) <= 80
    if inspect.isfunction(value):
        assert "Args:" in rest
        returned = inspect.signature(value).return_annotation
        assert returned is None or "Returns:" in rest


def test_public_functions_have_at_most_seven_parameters():
    for name in sare_tf.__all__:
        value = getattr(sare_tf, name)
        if callable(value):
            parameters = inspect.signature(value).parameters.values()
            named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
            assert len(named) <= 7, name


def test_modules_are_not_loaded_before_they_are_used():
    script = """
import sys
import sare_tf
names = dir(sare_tf)
assert {"SARELoss", "export", "manifest"} <= set(names), names
heavy = {"tensorflow", "keras", "numpy", "pandas", "scann"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


if __name__ == "__main__":
    KEPT.write_text(render(), encoding="utf-8")
