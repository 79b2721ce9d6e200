"""Writes docs/api.md: the public API, from its docstrings.

python docs/make_api.py
"""

import inspect
import re
import types
from pathlib import Path

import sare_tf

PAGE = Path(__file__).with_name("api.md")
_HEADER = """# API

Everything that `sare_tf` promises, from the docstrings (`make api` writes this
page). Stages are also functions: `sare_tf.<stage>.run(options)`, with the
options that `python -m sare_tf.<stage> --help` lists.
"""
# A line of an Args section: the name of an argument, and what it is.
_ENTRY = re.compile(r"^    (\*{0,2}\w+(?:, \*{0,2}\w+)*): (.*)$")
# Types as annotations print them, and as people write them.
_TYPES = {
    "keras.src.models.model.Model": "keras.Model",
    "keras.src.dtype_policies.dtype_policy.": "keras.",
    "tensorflow.python.data.ops.dataset_ops.DatasetV2": "tf.data.Dataset",
    "collections.abc.": "",
    "pathlib.": "",
    "pandas.core.frame.": "pd.",
    "numpy.": "np.",
}
_SECTION = re.compile(
    r"^(Args|Attributes|Call arguments|Input shape|Output shape|Output|Returns|"
    r"Yields|Raises|Example|Source):( .*)?$"
)


def render() -> str:
    """Returns the page as Markdown."""
    names = sorted(sare_tf.__all__, key=str.lower)
    lines = [_HEADER]
    lines += [f"- [`{name}`](#{name.lower()})" for name in names]
    for name in names:
        value = getattr(sare_tf, name)
        lines += ["", f"## {name}", ""]
        lines += _entry(f"sare_tf.{name}", value)
        if inspect.ismodule(value) and not callable(value):
            lines += _contents(name, value)
        if inspect.isclass(value):
            for method, function in _methods(value):
                lines += ["", f"### {name}.{method}", ""]
                lines += _entry(f"{name}.{method}", function)
    return "\n".join(lines).rstrip() + "\n"


def _contents(name: str, module: types.ModuleType) -> list[str]:
    """Public functions and classes of a module, with their first lines."""
    lines = [""]
    for member in getattr(module, "__all__", vars(module)):
        value = getattr(module, member)
        is_own = getattr(value, "__module__", "").startswith(module.__name__)
        if is_own and callable(value) and not member.startswith("_"):
            first = (inspect.getdoc(value) or "").partition("\n")[0]
            lines.append(f"- `{name}.{member}`: {first}")
    return lines


def _methods(cls: type) -> list[tuple[str, object]]:
    """Public methods that the class itself defines and documents.

    `inspect.getdoc` would take Keras's text for a method without one.
    """
    return [
        (name, getattr(cls, name))
        for name, value in vars(cls).items()
        if not name.startswith("_")
        and name != "get_config"
        and isinstance(value, types.FunctionType | classmethod)
        and getattr(cls, name).__doc__
    ]


def _entry(name: str, value: object) -> list[str]:
    lines = []
    if callable(value):
        lines += ["```python", f"{name}{_signature(value)}", "```", ""]
    # Of a stage that is a function, too, the docstring of the function.
    return lines + _markdown(inspect.getdoc(inspect.unwrap(value)) or "")


def _signature(value: object) -> str:
    text = str(inspect.signature(value))
    for written, name in _TYPES.items():
        text = text.replace(written, name)
    if len(text) < 70:
        return text
    # One argument a line.
    depth, parts, start = 0, [], 1
    end = text.rindex(")") if "->" not in text else text.rindex(") ->")
    for at, letter in enumerate(text[:end]):
        depth += letter in "([{"
        depth -= letter in ")]}"
        if letter == "," and depth == 1:
            parts.append(text[start:at].strip())
            start = at + 1
    parts.append(text[start:end].strip())
    inner = "".join(f"    {part},\n" for part in parts if part)
    return f"(\n{inner}){text[end + 1 :]}"


def _markdown(docstring: str) -> list[str]:
    """Sections as bold words, their entries as lists."""
    lines, in_code, in_section = [], False, False
    for line in docstring.splitlines():
        section = _SECTION.match(line)
        if line.startswith("```"):
            in_code = not in_code
            lines.append(line)
        elif in_code:
            lines.append(line)
        elif section:
            in_section = True
            lines.append(f"**{section[1]}**{section[2] or ''}")
            if not section[2]:
                lines.append("")
        elif line.startswith("    ") and not in_section:
            lines.append(line)
        elif entry := _ENTRY.match(line):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif line.startswith("        "):
            lines.append("  " + line.strip())
        else:
            lines.append(line.strip())
    return lines


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
