"""Options of a stage: frozen dataclasses, from which flags are made.

A field states everything about an option once: its type, default, help and
allowed values. `define_flags` makes the flags, `from_flags` reads them, and a
dataclass that is made in Python refuses the same values as the flags:

    @options
    class SearchOptions(Options):
        k: int = option(5, "Matches to find for a photograph.", minimum=1)

    SearchOptions(k=0)  # ValueError: Expected k of at least 1. Received: k=0.

Classes are combined by inheritance: an option that several stages share is
written in one class, which the options of all these stages inherit.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from absl import flags

from sare_tf.runtime import paths

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
        default: the default.
        help: the meaning, for `--help` and the docstring of the class.
        choices: allowed values of a string, or of each string of a tuple.
        minimum: smallest value of a number, inclusive.
        maximum: largest value of a number, inclusive.
        is_enum: make the flag an enum of the choices. False: absl takes any
            text, and the dataclass checks it, with our message.
        has_flag: define a flag. False: the value comes after the flags on the
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
            "has_other_default": False,
            "expand": None,
            "flag": None,
        },
    )


def path_option(
    default: str | tuple[str, ...] | None,
    help: str,
    *,
    several: bool = False,
    has_flag: bool = True,
    flag: str | None = None,
) -> Any:
    """Makes a field that is a path, or a tuple of paths.

    `~` and variables of the environment are expanded, see `paths.expand`.

    Args:
        default: the default.
        help: the meaning.
        several: whether the text may be several paths with commas between.
        has_flag: define a flag.
        flag: name of the flag; None: that of the field.
    """
    field = option(default, help, has_flag=has_flag)
    expand = paths.expand_all if several else paths.expand
    return dataclasses.field(
        default=default,
        metadata={**field.metadata, "expand": expand, "flag": flag},
    )


def flag_of(field: dataclasses.Field) -> str:
    """Returns the name of the flag of a field."""
    return field.metadata["flag"] or field.name


def with_default(owner: type["Options"], name: str, default: Any) -> Any:
    """Makes a field like the option `name` of `owner`, with another default.

    The flag keeps the default of `owner`. If the flag is not given, the class
    has its own default.
    """
    field = owner.__dataclass_fields__[name]
    return dataclasses.field(
        default=default,
        metadata={
            **field.metadata,
            "has_flag": False,
            "has_other_default": True,
        },
    )


@typing.dataclass_transform(
    frozen_default=True,
    kw_only_default=True,
    field_specifiers=(option, path_option, with_default),
)
def options(cls):
    """Makes a frozen dataclass, and adds its fields to its docstring."""
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
    """The base of all options: checks values, and reads flags."""

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
        """Makes the options from the flags, and from `values` of no flag."""
        hints = _hints(cls)
        for field in dataclasses.fields(cls):
            name = flag_of(field)
            if field.name in values or name not in flags.FLAGS:
                continue
            flag = flags.FLAGS[name]
            # A class may have a default of its own, see `with_default`.
            if not flag.using_default_value:
                values[field.name] = _from_flag(
                    name, hints[field.name], flag.value
                )
        return cls(**values)

    def part(self, cls: type["Options"], **changes) -> Any:
        """Returns the options of another class, from the fields it shares.

        Args:
            cls: the class.
            **changes: values that differ from these options.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name in names
        }
        return cls(**{**values, **changes})


def define_flags(classes: Iterable[type[Options]]) -> None:
    """Defines a flag for every field of the classes; each flag once."""
    for cls in classes:
        hints = _hints(cls)
        for field in dataclasses.fields(cls):
            if field.metadata["has_flag"] and flag_of(field) not in flags.FLAGS:
                _define_flag(field, hints[field.name], module=cls.__module__)


def _define_flag(field: dataclasses.Field, hint: Any, module: str) -> None:
    kind, is_tuple = _kind(hint)
    metadata, name = field.metadata, flag_of(field)
    common = {"help": metadata["help"], "module_name": module}
    if is_tuple:
        texts = [_as_text(item) for item in field.default]
        flags.DEFINE_list(name, texts, **common)
    elif kind is bool:
        flags.DEFINE_bool(name, field.default, **common)
    elif kind in _NUMBERS:
        define = flags.DEFINE_integer if kind is int else flags.DEFINE_float
        bounds = {
            "lower_bound": metadata["minimum"],
            "upper_bound": metadata["maximum"],
        }
        define(name, field.default, **bounds, **common)
    elif metadata["choices"] and metadata["is_enum"]:
        flags.DEFINE_enum(name, field.default, metadata["choices"], **common)
    else:
        flags.DEFINE_string(name, field.default, **common)


def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _kind(hint: Any) -> tuple[type, bool]:
    """Returns the type of an option, without None, and if it is a tuple."""
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
    """Converts the value of a flag: absl leaves lists of numbers as texts.

    An empty text takes back what a flagfile gave an option that may be None.
    """
    kind, is_tuple = _kind(hint)
    if value == "" and types.NoneType in typing.get_args(hint):
        return None
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
    """Converts a value to the type of its option.

    Raises:
        ValueError: the option does not allow the value.
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
    metadata = field.metadata
    if kind is str:
        if not isinstance(value, str | Path):
            raise _refused(field, "a text", value)
        if metadata["choices"] and value not in metadata["choices"]:
            raise _refused(field, ", ".join(metadata["choices"]), value)
        expand = metadata["expand"]
        return expand(str(value), name=field.name) if expand else str(value)
    if kind is bool:
        if not isinstance(value, bool):
            raise _refused(field, "True or False", value)
        return value
    try:
        number = kind(value)
    except (TypeError, ValueError) as error:
        raise _refused(field, _NUMBERS[kind], value) from error
    low, high = metadata["minimum"], metadata["maximum"]
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
