"""The wheel, installed into another environment and used in another folder.

With SARE_TF_WHEEL_ENVIRONMENT, the folder of a new environment, everything that
the wheel needs is installed into it (`make test-wheel`). Otherwise, that comes
from the environment of the tests.
"""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from paths import ROOT

SMALL = [
    *("--flagfile=sare_tf:demo", "--places=60", "--epochs=1"),
    *("--image_height=48", "--image_width=64", "--num_clusters=4"),
    *("--recall_at=1,5", "--num_workers=1"),
]


def _run(*command, cwd, **settings):
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL")
    }
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        **settings,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the sources that are here now."""
    sources = tmp_path_factory.mktemp("sources")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    for name in ("sare_tf", "configs"):
        shutil.copytree(
            ROOT / name,
            sources / name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    (sources / "data").mkdir()
    for card in (ROOT / "data").glob("*.md"):
        shutil.copy(card, sources / "data")
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    done = _run(sys.executable, "-c", build, cwd=sources)
    assert done.returncode == 0, done.stderr
    (path,) = (sources / "dist").glob("*.whl")
    return path


def _make_environment(folder: Path, *, with_packages: bool = True) -> Path:
    """Makes an environment, and returns its interpreter.

    Args:
        folder: where it goes.
        with_packages: whether it finds the packages of this environment.
    """
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", folder], check=True
    )
    (site,) = folder.glob("lib/python*/site-packages")
    if with_packages:
        # Packages, but not the .pth files beside them: those name the clone.
        (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The programs of an environment in which the wheel is installed."""
    fresh = os.environ.get("SARE_TF_WHEEL_ENVIRONMENT")
    if fresh:
        python = _make_environment(Path(fresh), with_packages=False)
        needed = ["-c", ROOT / "constraints.txt"]
    else:
        folder = tmp_path_factory.mktemp("environment")
        python = _make_environment(folder)
        needed = ["--no-deps", "--no-index"]
    pip = [sys.executable, "-m", "pip", "--python", python]
    done = _run(*pip, "install", *needed, wheel, cwd=wheel.parent)
    assert done.returncode == 0, done.stderr
    return python.parent


@pytest.fixture(scope="module")
def demo(installed, tmp_path_factory):
    """The folder in which the small demo has run, and what it printed."""
    folder = tmp_path_factory.mktemp("elsewhere")
    done = _run(installed / "sare-tf", "demo", *SMALL, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_wheel_holds_flagfiles_cards_and_templates(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    for pattern in ("configs/**/*", "data/*.md", "sare_tf/pages/templates/*"):
        for path in ROOT.glob(pattern):
            name = path.relative_to(ROOT).as_posix()
            inside = name if name.startswith("sare_tf/") else f"sare_tf/{name}"
            assert path.is_dir() or inside in held, name
    assert not [name for name in held if name.startswith("tests/")]


def test_the_description_has_no_link_into_the_repository(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    description = metadata.get_payload()
    links = re.findall(r"\]\(([^)\s]+)\)", description)
    assert len(links) > 10
    assert all(link.startswith(("https://", "#")) for link in links)
    home = metadata["Home-page"]
    assert f"]({home}/raw/main/docs/demo.png)" in description
    for link in links:
        if link.startswith(home):
            path = re.sub("^/(raw|blob)/main/", "", link.removeprefix(home))
            assert (ROOT / path.partition("#")[0]).exists(), link
    assert metadata["Author"]
    assert metadata["License-File"] == "LICENSE"
    assert metadata.get_all("Classifier")


def test_the_demo_of_the_wheel(demo, installed):
    folder, done = demo
    result = json.loads(done.stdout)
    assert result["stage"] == "demo"
    assert set(result["recall_at"]) == {"pixels", "untrained", "trained"}
    assert (folder / result["page"]).is_file()
    used = _run(
        installed / "python",
        "-c",
        "import sare_tf; print(sare_tf.__file__)",
        cwd=folder,
    )
    assert Path(used.stdout.strip()).is_relative_to(installed.parent)


def _of_tensorflow(lines: list[str]) -> list[str]:
    """Returns the lines that TensorFlow's libraries and loggers write."""
    begin = r"\d{4}-\d\d-\d\d .*: [IWEF] |[IWEF]0000 |WARNING: All log|WARNING:"
    return [line for line in lines if re.match(begin, line)]


def test_the_log_of_the_demo_is_short(demo):
    _, done = demo
    lines = done.stderr.splitlines()
    # As absl of C++, TensorFlow's logger and Python's warnings begin.
    begin = r"\d{4}-\d\d-\d\d .*: [IWEF] |[IWEF]0000 |WARNING|.*Warning: "
    of_others = [line for line in lines if re.match(begin, line)]
    assert len(of_others) <= 1, of_others
    assert "\r" not in done.stderr
    assert len(lines) < 100


def test_a_photograph_is_located(demo, installed):
    folder, _ = demo
    photo = min((folder / "runs/demo/city/images/test/queries").iterdir())
    done = _run(
        installed / "sare-tf",
        "locate",
        *SMALL,
        "--quiet",
        photo,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{photo}: ")
    lines = done.stderr.splitlines()
    assert len(lines) == len(_of_tensorflow(lines)) <= 1, done.stderr


def test_own_photographs_begin_with_init(demo, installed):
    """The commands in the flagfile, as far as before training."""
    folder, _ = demo
    photos = folder / "runs/demo/city"
    done = _run(
        installed / "sare-tf",
        *("init", "mine", f"--dataset={photos}", "--reader=at_names"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    path = folder / "mine" / "own.flags"
    (line,) = re.findall(r"sare-tf (build_records --\S+)", path.read_text())
    done = _run(installed / "sare-tf", *line.split(), "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == "mine/records"


@pytest.fixture
def above(tmp_path):
    """The folder above a clone that is named sare_tf."""
    clone = tmp_path / "sare_tf"
    clone.mkdir()
    shutil.copy(ROOT / "__init__.py", clone)
    (clone / "sare_tf").symlink_to(ROOT / "sare_tf")
    return tmp_path


_FILE = "import sare_tf; print(sare_tf.__file__)"


def test_above_a_clone_an_installed_package_goes_first(above, installed):
    done = _run(installed / "python", "-c", _FILE, cwd=above)
    assert Path(done.stdout.strip()).is_relative_to(installed.parent)
    done = _run(installed / "python", "-m", "sare_tf.compare", "-h", cwd=above)
    assert done.stdout.startswith("Evaluations side by side")


def test_above_a_clone_the_package_is_found(above, tmp_path):
    python = _make_environment(tmp_path / "environment")
    done = _run(python, "-c", _FILE, cwd=above)
    assert done.stdout.strip() == str(above / "sare_tf/sare_tf/__init__.py")
    done = _run(python, "-m", "sare_tf", "--version", cwd=above)
    assert done.stdout == "0.1.0\n"
    done = _run(python, "-m", "sare_tf.compare", "--help", cwd=above)
    assert done.stdout.startswith("Evaluations side by side")


def test_above_a_clone_without_its_environment(above, tmp_path):
    python = _make_environment(tmp_path / "empty", with_packages=False)
    done = _run(python, "-c", "import sare_tf", cwd=above)
    message = done.stderr.splitlines()[-1]
    assert message.startswith("ImportError: Expected an environment in which")
    assert message.endswith(f"{above / 'sare_tf/.venv'}.")
