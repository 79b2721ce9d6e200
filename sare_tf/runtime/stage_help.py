"""The help of a stage: the flags that it reads, grouped, with their defaults.

absl prints the flags of every imported module, including TensorFlow's. A stage
reads only the fields of its options, so its help shows only these.
"""

import dataclasses
import textwrap

from sare_tf.runtime.options import Options

_INDENT = " " * 6
_REQUIRED = "Required:"
_OWN = "Options of this stage:"
_OTHERS = "Shared with other stages:"


def describe_flags(cls: type[Options]) -> str:
    """Returns the flags of a stage, grouped, each with its default and help.

    The flags without which the stage does not start come first, then its own
    ones, then one group for each class of options that it inherits.

    Args:
        cls: the options of the stage.
    """
    lines = []
    for title, fields in _groups(cls).items():
        lines += ["", title]
        for field in fields:
            lines += _describe(field)
    return "\n".join(lines[1:])


def _groups(cls: type[Options]) -> dict[str, list[dataclasses.Field]]:
    fields = {
        field.name: field
        for field in dataclasses.fields(cls)
        if field.metadata["has_flag"] or field.metadata["has_other_default"]
    }
    groups = {
        _REQUIRED: [
            fields.pop(name) for name in cls.REQUIRED if name in fields
        ],
        _OWN: [],
    }
    others = []
    for owner in cls.__mro__:
        names = owner.__dict__.get("__annotations__", {})
        own = [fields.pop(name) for name in names if name in fields]
        if owner is cls:
            groups[_OWN] = own
        elif len(own) == 1:
            others += own
        else:
            title = (owner.__doc__ or "").partition("\n")[0].rstrip(".") + ":"
            groups[title] = own
    groups[_OTHERS] = others
    return {title: group for title, group in groups.items() if group}


def _describe(field: dataclasses.Field) -> list[str]:
    metadata, default = field.metadata, field.default
    if isinstance(default, bool):
        heading = f"--[no]{field.name}  (default: {'on' if default else 'off'})"
    elif default is None:
        heading = f"--{field.name}"
    else:
        value = default
        if isinstance(default, tuple):
            value = ",".join(f"{item}" for item in default)
        heading = (
            f"--{field.name}  (default: {value if value != '' else 'none'})"
        )
    text = metadata["help"]
    choices = ", ".join(metadata["choices"])
    if choices not in text:
        text += f" One of: {choices}."
    return [
        f"  {heading}",
        *textwrap.wrap(
            text, 79, initial_indent=_INDENT, subsequent_indent=_INDENT
        ),
    ]
