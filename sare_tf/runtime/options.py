"""Options of a stage: frozen dataclasses, from which flags are made.

A field says everything about an option once: its type, default, help and
allowed values. `define_flags` makes the flags, `from_flags` reads them, and a
dataclass made in Python refuses what the flags refuse:

    @options
    class SearchOptions(Options):
        k: int = option(5, "Matches to find for a photograph.", minimum=1)

    SearchOptions(k=0)  # ValueError: Expected k of at least 1. Received: k=0.

Classes are combined by inheritance, so an option that several stages share is
written in one class that they all inherit.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from absl import flags

_NUMBERS = {int: "a whole number", float: "a number"}


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    is_enum: bool = True,
    has_flag: bool = True,
) -> Any:
    """Makes a field of an options class.

    Args:
        default: its default.
        help: what it does, for `--help` and the docstring of the class.
        choices: the values that a string, or each string of a tuple, may have.
        minimum: smallest value of a number, inclusive.
        maximum: largest value of a number, inclusive.
        is_enum: whether the flag itself is limited to the choices; False for
            a flag of any text, whose value is then checked with a message of
            ours.
        has_flag: whether it is a flag; others come after the flags on the
            command line, or from Python.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "choices": tuple(choices),
            "minimum": minimum,
            "maximum": maximum,
            "is_enum": is_enum,
            "has_flag": has_flag,
        },
    )


def with_default(owner: type["Options"], name: str, default: Any) -> Any:
    """The option `name` of `owner`, for a class where its default differs.

    The flag keeps the default of `owner`. Where the flag is not given, the
    class takes its own default.
    """
    field = owner.__dataclass_fields__[name]
    return dataclasses.field(
        default=default, metadata={**field.metadata, "has_flag": False}
    )


@typing.dataclass_transform(
    frozen_default=True,
    kw_only_default=True,
    field_specifiers=(option, with_default),
)
def options(cls):
    """Makes a frozen dataclass, and lists its fields in its docstring."""
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    lines = [
        f"    {field.name}: {field.metadata['help']} Default: "
        f"{field.default!r}."
        for field in dataclasses.fields(cls)
    ]
    cls.__doc__ = "\n".join([cls.__doc__ or "", "", "Args:", *lines])
    return cls


@options
class Options:
    """Base of all options: checks values, and reads flags."""

    # Names of options that must have a value.
    REQUIRED: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        hints = _hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            value = _checked(field, hints[field.name], value)
            object.__setattr__(self, field.name, value)
        self.require(*self.REQUIRED)

    def require(self, *names: str) -> None:
        """Refuses options that have no value.

        Raises:
            ValueError: one of `names` has none.
        """
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            raise ValueError(
                "Expected --"
                + ", --".join(names)
                + ". Received no value for: --"
                + ", --".join(missing)
                + ". Give them on the command line or in the flagfile."
            )

    @classmethod
    def from_flags(cls, **values) -> Self:
        """Takes the values of the flags, and `values` for what is no flag."""
        hints = _hints(cls)
        for field in dataclasses.fields(cls):
            if field.name in values or field.name not in flags.FLAGS:
                continue
            flag = flags.FLAGS[field.name]
            # A class may have a default of its own, see `with_default`.
            if not flag.using_default_value:
                values[field.name] = _from_flag(
                    field.name, hints[field.name], flag.value
                )
        return cls(**values)

    def part(self, cls: type["Options"], **changes) -> Any:
        """These options as another class, which has some of the fields."""
        names = {field.name for field in dataclasses.fields(cls)}
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name in names
        }
        return cls(**{**values, **changes})


def define_flags(classes: Iterable[type[Options]]) -> None:
    """Defines a flag for every field, each once."""
    for cls in classes:
        hints = _hints(cls)
        for field in dataclasses.fields(cls):
            if field.metadata["has_flag"] and field.name not in flags.FLAGS:
                _define_flag(field, hints[field.name], module=cls.__module__)


def _define_flag(field: dataclasses.Field, hint: Any, module: str) -> None:
    kind, is_tuple = _kind(hint)
    said = field.metadata
    common = {"help": said["help"], "module_name": module}
    if is_tuple:
        texts = [_as_text(item) for item in field.default]
        flags.DEFINE_list(field.name, texts, **common)
    elif kind is bool:
        flags.DEFINE_bool(field.name, field.default, **common)
    elif kind in _NUMBERS:
        define = flags.DEFINE_integer if kind is int else flags.DEFINE_float
        bounds = {
            "lower_bound": said["minimum"],
            "upper_bound": said["maximum"],
        }
        define(field.name, field.default, **bounds, **common)
    elif said["choices"] and said["is_enum"]:
        flags.DEFINE_enum(field.name, field.default, said["choices"], **common)
    else:
        flags.DEFINE_string(field.name, field.default, **common)


def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _kind(hint: Any) -> tuple[type, bool]:
    """The type of an option without its None, and whether it is a tuple."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(
            kind for kind in typing.get_args(hint) if kind is not types.NoneType
        )
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False


def _as_text(item: Any) -> str:
    return f"{item:g}" if isinstance(item, float) else str(item)


def _from_flag(name: str, hint: Any, value: Any) -> Any:
    """Numbers of a list, which absl leaves as texts."""
    kind, is_tuple = _kind(hint)
    if not is_tuple or kind is str:
        return value
    try:
        return tuple(kind(text) for text in value)
    except ValueError as error:
        numbers = "whole numbers" if kind is int else "numbers"
        raise ValueError(
            f"Expected {numbers}. Received: --{name}={','.join(value)}."
        ) from error


def _checked(field: dataclasses.Field, hint: Any, value: Any) -> Any:
    """A value as its type has it.

    Raises:
        ValueError: it is not one that the option allows.
    """
    kind, is_tuple = _kind(hint)
    if value is None and types.NoneType in typing.get_args(hint):
        return None
    if not is_tuple:
        return _checked_item(field, kind, value)
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise _refused(field, "a list", value)
    return tuple(_checked_item(field, kind, item) for item in value)


def _checked_item(field: dataclasses.Field, kind: type, value: Any) -> Any:
    said = field.metadata
    if kind is str:
        if not isinstance(value, str | Path):
            raise _refused(field, "a text", value)
        if said["choices"] and value not in said["choices"]:
            raise _refused(field, ", ".join(said["choices"]), value)
        return str(value)
    if kind is bool:
        if not isinstance(value, bool):
            raise _refused(field, "True or False", value)
        return value
    try:
        number = kind(value)
    except (TypeError, ValueError) as error:
        raise _refused(field, _NUMBERS[kind], value) from error
    low, high = said["minimum"], said["maximum"]
    is_between = (low is None or number >= low) and (
        high is None or number <= high
    )
    # `number != value` also refuses NaN, and 1.5 for a whole number.
    if isinstance(value, bool | str) or number != value or not is_between:
        bounds = f" of at least {low:g}" if low is not None else ""
        if high is not None:
            bounds += f"{' and' if bounds else ' of'} at most {high:g}"
        raise _refused(field, f"{_NUMBERS[kind]}{bounds}", value)
    return number


def _refused(field: dataclasses.Field, expected: str, value: Any) -> ValueError:
    return ValueError(
        f"Expected {field.name} to be {expected}. Received: "
        f"{field.name}={value!r}."
    )
