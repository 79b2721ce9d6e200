"""The log of a command on a terminal and in a file, and --quiet."""

import os
import pty
import subprocess
import sys
import termios

import pytest
from paths import ROOT

PROGRAM = """
import sys
from absl import logging
from sare_tf import flags
from sare_tf.runtime import progress, stage_results

def main(argv):
    logging.info("Reading %d images.", 3)
    exec(compile("logging.info('A note.')", "/lib/tensorflow/a.py", "exec"))
    with progress.bar("read", total=3) as bar:
        bar.update(3)
    logging.warning("One is dark.")
    stage_results.report("train", "An epoch.")
    stage_results.report("check", "Two findings.", ok=False)
    raise ValueError("Expected more.")

flags.start(main)
"""


@pytest.fixture(scope="module", autouse=True)
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stage")
    (folder / "check.py").write_text(PROGRAM)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


def _run(*arguments, **streams):
    return subprocess.Popen(
        [sys.executable, "check.py", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **streams,
    )


def _on_a_terminal(*arguments) -> tuple[str, str]:
    """Returns what a command writes to stdout and to a terminal's stderr."""
    mine, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 80))
    process = _run(*arguments, stdout=subprocess.PIPE, stderr=its)
    os.close(its)
    text = b""
    while True:
        try:
            read = os.read(mine, 4096)
        except OSError:  # Linux: the other side is closed.
            break
        text += read
    os.close(mine)
    written, _ = process.communicate()
    assert process.returncode == 1
    return written.decode(), text.decode().replace("\r\n", "\n")


def _in_a_file(*arguments) -> tuple[str, str]:
    process = _run(
        *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    written, log = process.communicate()
    assert process.returncode == 1
    return written, log


def test_a_terminal_gets_messages_without_prefix_and_a_bar():
    written, log = _on_a_terminal()
    assert written == "Two findings.\n"
    lines = log.splitlines()
    assert lines[0] == "Reading 3 images."
    assert "0/3 [00:00" in log
    assert "Warning: One is dark." in log
    assert "Error: Expected more.\n" in log


def test_a_file_gets_messages_with_time_and_place_and_no_bar():
    written, log = _in_a_file()
    assert written == "Two findings.\n"
    first, warning, other, error, _ = log.splitlines()
    assert first.startswith("I")
    assert first.endswith("] Reading 3 images.")
    assert warning.startswith("W")
    # The result of another stage.
    assert other.endswith("] An epoch.")
    assert error.startswith("E")


def test_notes_of_tensorflow_are_shown_on_demand():
    _, log = _in_a_file("--verbosity=1")
    assert "a.py:1] A note.\n" in log


@pytest.mark.parametrize("run", [_on_a_terminal, _in_a_file])
def test_quiet_leaves_out_everything_but_problems(run):
    written, log = run("--quiet", "--json")
    assert written == '{"stage": "check", "ok": false, "next": null}\n'
    warning, error = log.splitlines()
    assert warning.endswith("One is dark.")
    assert error.endswith("Expected more.")
