"""The project holds together: flagfiles, import direction, public functions."""

import ast
import dataclasses
import json
import pkgutil
import re
import shlex
import statistics
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver
from paths import ROOT

import sare_tf
from sare_tf import flags as stage_flags
from sare_tf.dataset import readers
from sare_tf.runtime import flagfiles

PACKAGE = ROOT / "sare_tf"
FLAGFILES = sorted((ROOT / "configs").rglob("*.flags"))

# Which folder may import which, beside what those may. Every part may import
# the flags and the package's version.
MAY_IMPORT = {
    "runtime": set(),
    "losses": {"runtime"},
    "city": {"runtime"},
    "dataset": {"runtime"},
    "distributed": {"runtime"},
    "serving": {"runtime"},
    "local_features": {"dataset", "serving"},
    "records": {"dataset"},
    "model": {"dataset"},
    "weights": {"model"},
    "search": {"local_features", "records"},
    "landmarks": {"search"},
    "sequences": {"search"},
    "evaluation": {"landmarks", "sequences"},
    "pages": {"evaluation"},
    "training": {"distributed", "evaluation", "losses", "model"},
    "checks": {"evaluation"},
    "photo_database": {"training", "weights"},
}
# Stages import folders. These work on an export, which is all that they know of
# a network.
RIGHT_OF_EXPORT = {"index", "evaluate", "locate", "compare"} | {
    "export_onnx",
    "export_vectors",
}
LEFT_OF_EXPORT = {"losses", "model", "training", "weights"}
# Makes the export where there is none yet. What it needs for that is imported
# only then: see test_a_second_look_imports_no_network.
MAKES_EXPORTS = {"locate": {"photo_database"}}
IMPORTS_STAGES = {"demo"}


def _parts():
    return sorted(
        path
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "__pycache__"
    )


def _part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported(path: Path) -> set[str]:
    """Folders and stages that a module imports, other than its own."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "sare_tf" and len(parts) > 1:
                imported.add(parts[1])
    return imported - {_part_of(path), "flags", "__version__"}


def _closure(folder: str) -> set[str]:
    """What a folder may import, directly or through what it may import."""
    reached, ahead = set(), [folder]
    while ahead:
        for other in MAY_IMPORT[ahead.pop()] - reached:
            reached.add(other)
            ahead.append(other)
    return reached


STAGES = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "flags"}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_follow_the_design(folder):
    imported = set().union(*map(_imported, (PACKAGE / folder).rglob("*.py")))
    assert imported <= _closure(folder)
    assert folder not in _closure(folder)
    unused = MAY_IMPORT[folder] - imported
    assert not unused, f"{folder} does not import {unused}"


def test_every_folder_is_in_the_table():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(MAY_IMPORT)
    assert not folders & STAGES


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_stages_import_folders(stage):
    imported = _imported(PACKAGE / f"{stage}.py")
    if stage not in IMPORTS_STAGES:
        assert imported <= set(MAY_IMPORT)
    if stage in RIGHT_OF_EXPORT:
        folders = imported & set(MAY_IMPORT) - MAKES_EXPORTS.get(stage, set())
        assert not folders.union(*map(_closure, folders)) & LEFT_OF_EXPORT


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_flagfile_parses(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with flagsaver.flagsaver():
        given = flagfiles.insert([f"--flagfile={path}"])
        assert flags.FLAGS(["program", *given]) == ["program"]
        named = [argument[2:].partition("=")[0] for argument in given]
        assert [name for name in named if not flags.FLAGS[name].present] == []


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_flagfile_says_what_it_is_and_its_command(path):
    text = path.read_text(encoding="utf-8")
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert len(header) >= 2
    assert any("make " in line or "python -m" in line for line in header), (
        "the header names no command"
    )


def test_flagfiles_exist():
    cards = {
        f"{dataset}_sare_{form}"
        for dataset in ("pitts30k", "pitts250k", "tokyotm")
        for form in ("independent", "joint")
    }
    stems = {path.stem for path in FLAGFILES}
    assert stems >= {"demo", "own_photos"} | cards


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("pitts30k_sare_independent", 1e-3),
        ("pitts30k_sare_joint", 1e-3),
        ("pitts250k_sare_independent", 1e-4),
        ("pitts250k_sare_joint", 1e-4),
        ("tokyotm_sare_independent", 1e-4),
        ("tokyotm_sare_joint", 1e-4),
    ],
)
def test_cards_of_the_paper_hold_the_rates_of_the_original(
    name, rate, monkeypatch
):
    """A joint card differs from the independent one in loss and folders."""
    monkeypatch.chdir(ROOT)
    with flagsaver.flagsaver():
        flags.FLAGS(flagfiles.insert(["", f"--flagfile=sare_tf:{name}"]))
        assert flags.FLAGS.learning_rate == pytest.approx(rate)
        assert flags.FLAGS.weight_decay == pytest.approx(1e-3)
        assert flags.FLAGS.joint_scaling == (
            "negatives" if name.endswith("joint") else "tuples"
        )
        assert f"sare_{name.rpartition('_')[2]}" == flags.FLAGS.loss
        assert name in flags.FLAGS.checkpoints
        assert flags.FLAGS.train_positives == "netvlad"
        assert flags.FLAGS.refresh_every_queries == 1000


def _public_functions():
    for info in pkgutil.walk_packages(sare_tf.__path__, "sare_tf."):
        tree = ast.parse(
            Path(import_path(info.name)).read_text(encoding="utf-8")
        )
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name[0] != "_":
                yield pytest.param(node, id=f"{info.name}.{node.name}")


def import_path(name: str) -> str:
    path = ROOT / Path(*name.split("."))
    package = path / "__init__.py"
    return str(package if package.exists() else path.with_suffix(".py"))


@pytest.mark.parametrize("function", list(_public_functions()))
def test_optional_arguments_are_keyword_only(function):
    assert not function.args.defaults
    assert ast.get_docstring(function) or function.name == "main"


def test_the_api_is_there():
    for name in sare_tf.__all__:
        assert getattr(sare_tf, name) is not None
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = sare_tf.nothing


def test_no_path_of_one_machine():
    for path in [*_parts(), *FLAGFILES, ROOT / "Makefile"]:
        text = path.read_text(encoding="utf-8")
        assert "/home/" not in text
        assert "/root/" not in text


def _own_flags():
    return {
        flag.name: flag
        for module, of_module in flags.FLAGS.flags_by_module_dict().items()
        if module.startswith("sare_tf.")
        for flag in of_module
    }


def test_flags_are_as_users_know_them():
    """Names, types, defaults and limits before flags were made of options."""
    known = json.loads((ROOT / "tests/kept/flags.json").read_text("utf-8"))
    # Takes files of Keras models as well, so that it cannot be an enum.
    known["backbone"] |= {"type": "string", "choices": None}
    # One is enough for a loss that was added: more is allowed than before.
    known["images_per_place"] |= {"bounds": [1, None]}
    own = _own_flags()
    for name, expected in known.items():
        flag = own[name]
        choices = getattr(flag.parser, "enum_values", None)
        # Names may be added, in any place.
        choices = choices and [
            choice for choice in choices if choice in expected["choices"]
        ]
        assert {
            "type": flag.flag_type(),
            "default": flag.default,
            "choices": choices,
            "bounds": [
                getattr(flag.parser, "lower_bound", None),
                getattr(flag.parser, "upper_bound", None),
            ],
        } == expected, name


def test_every_option_is_used():
    """Outside of the options, by the name of the field."""
    text = "".join(
        path.read_text(encoding="utf-8")
        for path in _parts()
        if path.name not in ("options.py", "common_options.py")
    )
    unused = [
        name
        for name in _own_flags()
        # Options of readers are passed on by their names.
        if name not in readers.DEFAULTS and not re.search(rf"\.{name}\b", text)
    ]
    assert unused == []


def test_options_that_name_files_are_paths():
    """So that `~` and `$HOME` are expanded, and no folder of that name made."""
    for options in stage_flags.OPTIONS.values():
        hints = typing.get_type_hints(options)
        for field in dataclasses.fields(options):
            is_text = "str" in str(hints[field.name])
            about = re.match(
                r"(\w+ )?(folder|file|centres|records|list of|pca|what synth"
                r"|weights of a network|jpeg or png files)",
                field.metadata["help"].lower(),
            )
            is_path = field.metadata["expand"] is not None
            assert is_path == bool(is_text and about), field.name


def test_a_default_is_written_once():
    """A field of the same name in two classes is the same field."""
    owners = {}
    for options in stage_flags.OPTIONS.values():
        for field in dataclasses.fields(options):
            if field.metadata["has_flag"]:
                owner = next(
                    base
                    for base in reversed(options.__mro__)
                    if field.name in getattr(base, "__annotations__", {})
                )
                assert owners.setdefault(field.name, owner) is owner


def test_commands_in_the_readme_name_real_modules():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in text.splitlines():
        if "python -m sare_tf." in line:
            words = shlex.split(line.split("#")[0].strip(" `$"), posix=True)
            module = words[words.index("-m") + 1]
            if "$" in module:  # a loop over stages
                continue
            assert Path(import_path(module)).exists(), module


def test_the_container_is_built_from_what_is_there():
    """hadolint's rules; and every copied path exists and is not ignored."""
    dockerfile = ROOT / "docker/Dockerfile"
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("hadolint is not installed: pip install -e .[dev]")
    subprocess.run([linter, dockerfile], check=True)
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    copied = set()
    for line in dockerfile.read_text("utf-8").splitlines():
        if line.startswith("COPY "):
            copied.update(line.split()[1:-1])
    assert copied == allowed
    assert all(any(ROOT.glob(name)) for name in copied)


def test_modules_and_functions_are_short():
    sizes = {}
    for path in _parts():
        text = path.read_text(encoding="utf-8")
        sizes[path.relative_to(ROOT)] = len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                where = f"{path.relative_to(ROOT)}: {node.name}"
                body = node.body
                if ast.get_docstring(node):
                    body = body[1:] or body
                assert body[-1].end_lineno - body[0].lineno < 60, where
                arguments = node.args
                names = {
                    argument.arg
                    for argument in (*arguments.args, *arguments.kwonlyargs)
                }
                assert len(names - {"self", "cls"}) <= 7, where
    assert max(sizes.values()) <= 400, max(sizes, key=sizes.get)
    assert statistics.median(sizes.values()) < 180
