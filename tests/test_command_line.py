"""The list of stages, and the help of each, without TensorFlow."""

import dataclasses
import os
import runpy
import subprocess
import sys

import documented_results
import pytest
from paths import ROOT

from sare_tf import __main__ as command
from sare_tf import flags as stage_flags
from sare_tf.runtime.options import flag_of
from sare_tf.runtime.stage_help import describe_flags

STAGES = sorted(
    path.stem
    for path in (ROOT / "sare_tf").glob("*.py")
    if path.stem not in ("__init__", "__main__", "flags")
)


@pytest.fixture(scope="module")
def without_tensorflow(tmp_path_factory):
    """An environment in which an import of TensorFlow or Keras fails."""
    folder = tmp_path_factory.mktemp("broken")
    for name in ("tensorflow", "keras"):
        (folder / f"{name}.py").write_text(f"raise ImportError('{name}')")
    path = os.pathsep.join([str(folder), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path}


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "sare_tf", "train", "--help"],
        ["-m", "sare_tf.train", "--help"],
        ["-msare_tf.train", "--flagfile=missing.flags", "-h"],
    ],
)
def test_help_imports_no_tensorflow(arguments, without_tensorflow):
    done = subprocess.run(
        [sys.executable, *arguments],
        env=without_tensorflow,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == stage_flags.help_of("train")
    assert done.stderr == ""


def test_help_lists_the_flags_that_a_stage_reads():
    for stage, cls in stage_flags.OPTIONS.items():
        described = describe_flags(cls)
        assert described in stage_flags.help_of(stage)
        text = f"\n{described}\n"
        of_others = {
            flag_of(field)
            for field in dataclasses.fields(cls)
            if flag_of(field) != field.name
        }
        for field in dataclasses.fields(cls):
            if field.name in of_others:
                continue
            metadata = field.metadata
            is_flag = metadata["has_flag"] or metadata["has_other_default"]
            flag = flag_of(field)
            bool_flag = f"\n  --[no]{flag}  ("
            listed = f"\n  --{flag}\n" in text
            listed = listed or f"\n  --{flag}  (" in text
            assert is_flag == (listed or bool_flag in text), field.name
        assert max(map(len, described.splitlines())) <= 79


def test_help_begins_with_required_flags():
    text = stage_flags.help_of("index")
    required, others = (
        text.index("Required:\n  --index\n"),
        text.index("  --index_shard  (default: 0/1)\n"),
    )
    assert required < others
    text = stage_flags.help_of("check")
    assert "Options of this stage:" in text
    # The commands of the docstring are as far from the margin as in it.
    assert "\n\n    python -m sare_tf.check --flagfile" in text
    # Choices that the help names are not named again.
    assert text.count("patch_netvlad, place_folders") == 1


def test_the_demo_names_the_stages_whose_flags_it_reads():
    assert "synthetic_city,\nbuild_records, train" in stage_flags.help_of(
        "demo"
    )


def test_all_stages_are_listed(capsys, monkeypatch):
    assert stage_flags.stage_names() == STAGES
    for arguments in ([], ["--help"], ["help"]):
        monkeypatch.setattr(sys, "argv", ["sare-tf", *arguments])
        command.main()
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[2:-2]] == STAGES
    monkeypatch.setattr(sys, "argv", ["sare-tf", "--version"])
    command.main()
    assert capsys.readouterr().out == "0.1.0\n"


def test_an_unknown_stage_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sare-tf", "locat"])
    with pytest.raises(SystemExit, match="locat. Did you mean locate"):
        command.main()
    monkeypatch.setattr(sys, "argv", ["sare-tf", "zzz"])
    with pytest.raises(SystemExit, match="Received: zzz.$"):
        command.main()


def test_a_stage_runs_as_its_module_does(monkeypatch):
    calls = []
    monkeypatch.setattr(sys, "argv", ["sare-tf", "export-weights", "--out=x"])
    monkeypatch.setattr(
        runpy,
        "run_module",
        lambda *args, **kwargs: calls.append((args, kwargs)),
    )
    command.main()
    assert calls == [
        (
            ("sare_tf.export_weights",),
            {"run_name": "__main__", "alter_sys": True},
        )
    ]
    assert sys.argv == ["sare_tf.export_weights", "--out=x"]


def test_a_flagfile_in_utf_16_with_a_home(tmp_path, monkeypatch):
    """Comparing needs no TensorFlow, so that the processes are quick."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.flags").write_text("--comparison=~/out\n", "utf-16")
    for flagfile, message in (
        ("own.flags", f"Received: path='{tmp_path}/home/a/metrics.json'"),
        ("none.flags", "Expected a flagfile. Received: flagfile='none.flags'"),
    ):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "sare_tf", "compare"),
                *(f"--flagfile={flagfile}", "$HOME/a", "~/b"),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["own.flags"]


def test_an_unknown_flag_names_the_nearest():
    for given, message in (
        ("--comparisn=a", "--comparisn. Did you mean --comparison? --help"),
        ("--zzzzzz", "Received: --zzzzzz. --help lists"),
        ("--json=maybe", "--json=maybe"),
        ("--flagfile=sare_tf:dem", "demo, gsv_dinov2b_boq"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "sare_tf", "compare", given],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("Error: ")
        assert message in line


def test_every_result_is_documented():
    assert sorted(documented_results.documented()) == STAGES


@pytest.mark.parametrize(("devices", "level"), [("null", "2"), ("no*", "3")])
def test_without_a_gpu_tensorflow_does_not_report_that(
    devices, level, monkeypatch
):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    monkeypatch.setattr(stage_flags, "_GPUS", ("no*", devices))
    stage_flags.before_stage(["python", "-m", "sare_tf.train"])
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == level
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    stage_flags.before_stage(["python", "-m", "sare_tf.train"])
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


@pytest.mark.parametrize(
    ("machine", "expected"),
    [("x86_64", "1"), ("AMD64", "1"), ("aarch64", None)],
)
def test_stages_use_onednn_unless_told_otherwise(
    machine, expected, monkeypatch
):
    monkeypatch.setattr(stage_flags.platform, "machine", lambda: machine)
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    stage_flags.before_stage(["python", "-m", "sare_tf.train"])
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == expected
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    stage_flags.before_stage(["python", "-m", "sare_tf.train"])
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"
