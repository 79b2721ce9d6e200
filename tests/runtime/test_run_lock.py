"""The lock of an output: between processes, after a kill, without locks."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import types

import pytest
from absl import logging
from paths import ROOT

from sare_tf.runtime import run_lock

# Writes a line once it holds the lock, then waits for its input to end.
HOLDER = """
import sys
from sare_tf.runtime import run_lock
with run_lock.only_run(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another_process(path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def is_free(path):
    try:
        with run_lock.only_run(path):
            return True
    except BlockingIOError:
        return False


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    path = tmp_path / "runs" / "records"
    with another_process(path) as process:
        assert os.listdir(path.parent) == [".records.lock"]
        told = json.loads((path.parent / ".records.lock").read_text())
        with (
            pytest.raises(BlockingIOError, match="one run at a time") as caught,
            run_lock.only_run(path),
        ):
            pass
        message = str(caught.value)
        for part in ("host", "started", "command"):
            assert str(told[part]) in message
        assert f"process {process.pid} of" in message
        assert repr(str(path)) in message
        # Another output, and this one under another name.
        assert is_free(tmp_path / "runs" / "index")
        (tmp_path / "link").symlink_to(tmp_path / "runs")
        assert not is_free(tmp_path / "link" / "records")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    # The kill left the file, and nothing holds it.
    assert os.listdir(path.parent) == [".records.lock"]
    assert is_free(path)
    assert os.listdir(path.parent) == []


def test_nothing_is_left(tmp_path):
    path = tmp_path / "a" / "b" / "out"
    with run_lock.only_run(path):
        assert not is_free(path)
    assert os.listdir(tmp_path) == []
    with pytest.raises(KeyError), run_lock.only_run(path):
        raise KeyError
    assert os.listdir(tmp_path) == []
    with run_lock.only_run(path):
        path.mkdir()
    assert os.listdir(path.parent) == ["out"]


def test_a_run_that_waits_for_a_file_that_is_removed(tmp_path, monkeypatch):
    """The first ends after the second opened its file: a third must wait."""
    path = tmp_path / "out"
    first = run_lock.only_run(path)
    first.__enter__()
    flock = run_lock.fcntl.flock

    def late(descriptor, how):
        if first is not None:
            end()
        flock(descriptor, how)

    def end():
        nonlocal first
        ending, first = first, None
        ending.__exit__(None, None, None)

    monkeypatch.setattr(run_lock.fcntl, "flock", late)
    with run_lock.only_run(path):
        assert os.listdir(tmp_path) == [".out.lock"]
        assert not is_free(path)


def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), run_lock.only_run(tmp_path / "out"):
        assert "has no locks (No locks available)" in caplog.text
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_hold_the_lock(tmp_path):
    """The stage says what is wrong with it, or has nothing to write."""
    (tmp_path / "file").touch()
    with run_lock.only_run(tmp_path / "file" / "below" / "out"):
        pass


@pytest.mark.parametrize("path", [None, "gs://bucket/tuples"])
def test_what_needs_no_lock(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with run_lock.only_run(path), run_lock.only_run(path):
        assert os.listdir(tmp_path) == []


def test_a_file_that_tells_nothing(tmp_path):
    path = tmp_path / "out"
    with run_lock.only_run(path):
        (tmp_path / ".out.lock").write_text("")
        with (
            pytest.raises(
                BlockingIOError, match="written by another run. Wait"
            ),
            run_lock.only_run(path),
        ):
            pass


def test_a_stage_holds_the_lock_of_its_option(tmp_path):
    @run_lock.one_at_a_time("out")
    def run(options, *, doubled=1):
        """Runs."""
        return is_free(options.out), doubled

    options = types.SimpleNamespace(out=tmp_path / "out")
    assert run(options) == (False, 1)
    assert run(options, doubled=2) == (False, 2)
    assert (run.__name__, run.__doc__) == ("run", "Runs.")
    assert is_free(options.out)
