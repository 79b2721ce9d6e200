"""The project holds together: flagfiles, import direction, public functions."""

import ast
import inspect
import pkgutil
import shlex
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

import sare_tf
from sare_tf import train

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sare_tf"
FLAGFILES = sorted((ROOT / "configs").rglob("*.flags"))

# Who may import what within the package (DESIGN: later stages import earlier
# parts only; right of export nothing imports model, losses, mining, training).
# Everyone may import flags, files and the package's version.
BASIS = {"flags", "files", "sare_tf"}
DATA = {"manifest", "records", "readers", "images"}
SERVED = {"serving", "retrieval", "report", "index", "manifest", "records"}
JUDGED = {"protocols", "truth", "scores", "outcomes", "confidence"}
MAY_IMPORT = {
    "manifest": set(),
    "listing": {"manifest"},
    "readers": {"listing", "manifest", "unpickling"},
    "parallel": set(),
    "records": {"manifest", "parallel"},
    "images": {"orientation"},
    "orientation": set(),
    "places": {"manifest"},
    "tuples": set(),
    "tuple_records": {"manifest", "parallel", "records", "tuples"},
    "pipeline": {"images", "records", "manifest", "parallel", "places"}
    | {"tuple_records"},
    "losses": set(),
    "model": set(),
    "optimizers": set(),
    "retrieval": set(),
    "mining": set(),
    "transports": set(),
    "remote": {"transports"},
    "serving": {"remote"},
    "report": set(),
    "protocols": set(),
    "truth": {"manifest", "retrieval", "protocols"},
    "scores": set(),
    "confidence": {"manifest"},
    "outcomes": {"manifest", "records", "report", "retrieval", "scores"}
    | {"truth", "confidence"},
    "warmup": set(),
    "unpickling": set(),
    "weights": {"model", "unpickling"},
    "export_onnx": {"serving"},
    "export_weights": {"checkpoints", "export", "weights"},
    "import_weights": DATA
    | {"build_records", "checkpoints", "model", "pipeline", "retrieval"}
    | {"weights"},
    "synthetic_city": {"city_rendering"},
    "city_rendering": set(),
    "record_plan": {"listing", "manifest", "readers"},
    "record_warnings": {"listing", "manifest"},
    "record_images": {"images", "orientation", "record_plan"},
    "record_shards": DATA | {"record_plan", "record_images"},
    "record_verification": {"manifest", "records"},
    "beam": {"beam_model"},
    "beam_model": set(),
    "build_records": DATA
    | {"record_plan", "record_shards", "record_verification"}
    | {"record_warnings", "tuple_records", "beam"},
    "checks": {"manifest", "readers", "protocols", "truth"},
    "check_report": {"manifest", "report"},
    "check": DATA | {"checks", "check_report", "report", "protocols"},
    "export_dataset": DATA,
    "options": set(),
    "checkpoints": {"tuples"},
    "progress": set(),
    "place_network": set(),
    "worker_loop": set(),
    "distribution": {"worker_loop"},
    "train_data": {"manifest", "records", "pipeline", "options", "progress"}
    | {"retrieval", "mining", "tuple_records", "distribution", "model"}
    | {"losses", "places"},
    "training_network": {"losses", "model", "optimizers", "place_network"}
    | {"distribution", "options", "train_data"},
    "training_epoch": {"pipeline", "optimizers", "progress", "tuples"}
    | {"options", "train_data", "training_log"}
    | {"distribution", "worker_loop"},
    "training_pictures": {"records", "pipeline", "mining"},
    "training_log": {"records", "pipeline", "mining", "training_pictures"},
    "training_plan": {"mining", "options"},
    "bad_images": {"records", "pipeline"},
    "train": {"records", "losses", "optimizers", "progress", "bad_images"}
    | {"distribution", "worker_loop"}
    | {"options", "checkpoints", "train_data"}
    | {"training_network", "training_epoch", "training_log"}
    | {"training_plan"},
    "export": DATA
    | {"checkpoints", "model", "losses", "optimizers", "warmup"}
    | {"place_network"},
    "approximate": set(),
    "tuning": {"approximate", "parallel", "retrieval"},
    "segments": {"approximate", "manifest", "retrieval", "tuning"},
    "searching": {"retrieval", "segments", "serving"},
    "embedding": {"records", "searching", "serving"},
    "segment_building": {"embedding", "records", "segments", "serving"},
    "index_changes": {"records", "searching", "segment_building", "segments"}
    | {"serving"},
    "index": {"approximate", "beam", "embedding", "index_changes", "records"}
    | {"searching", "segment_building", "segments", "serving"},
    "export_vectors": SERVED | {"export_dataset", "searching"},
    "evaluate": SERVED | JUDGED | {"searching"},
    "compare": {"report", "scores"},
    "locator": {"confidence", "images", "readers", "records", "searching"}
    | {"serving"},
    "locate_picture": {"images", "locator"},
    "web": {"images", "locator", "manifest", "report"},
    "locate": {"locator", "locate_picture", "readers", "serving", "web"},
    "demo": DATA
    | SERVED
    | {"synthetic_city", "build_records", "train"}
    | {"export", "evaluate"},
}


def _parts():
    return sorted(
        path
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "__pycache__"
    )


def _part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported(path: Path) -> set[str]:
    """Parts of the package that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "sare_tf":
                found.add(parts[1] if len(parts) > 1 else "sare_tf")
    return found


@pytest.mark.parametrize("path", _parts(), ids=lambda path: path.stem)
def test_imports_follow_the_design(path):
    part = _part_of(path)
    if part in ("__init__", "flags", "files"):
        assert not _imported(path) - {"flags"}
        return
    allowed = MAY_IMPORT[part] | BASIS | {part, "__version__"}
    assert not _imported(path) - allowed


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_flagfile_parses(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with flagsaver.flagsaver():
        rest = flags.FLAGS(["program", f"--flagfile={path}"])
        assert rest == ["program"]
        named = [
            line[2:].partition("=")[0]
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.startswith("--") and not line.startswith("--flagfile")
        ]
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
        flags.FLAGS(["program", f"--flagfile=configs/{name}.flags"])
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
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sare_tf.nothing


def test_no_path_of_one_machine():
    for path in [*_parts(), *FLAGFILES, ROOT / "Makefile"]:
        text = path.read_text(encoding="utf-8")
        assert "/home/" not in text
        assert "/root/" not in text


def test_every_flag_is_used_by_a_stage():
    by_module = flags.FLAGS.flags_by_module_dict()
    text = "".join(
        path.read_text(encoding="utf-8")
        for path in _parts()
        if path.name != "flags.py"
    )
    options = inspect.signature(train.Options).parameters
    assert [
        flag.name
        for flag in by_module["sare_tf.flags"]
        if f"FLAGS.{flag.name}" not in text and flag.name not in options
    ] == []


def test_commands_in_the_readme_name_real_modules():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in text.splitlines():
        if "python -m sare_tf." in line:
            words = shlex.split(line.split("#")[0].strip(" `$"), posix=True)
            module = words[words.index("-m") + 1]
            if "$" in module:  # a loop over stages
                continue
            assert Path(import_path(module)).exists(), module
