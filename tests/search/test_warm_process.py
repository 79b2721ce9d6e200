"""The process of `locate --keep_warm`: what it answers, and when it ends.

Most tests run the server in a thread, with a locator that only counts.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from paths import ROOT

from sare_tf.pages.options import LocateOptions
from sare_tf.runtime.damage import Damaged
from sare_tf.search import warm_client, warm_protocol, warm_server
from sare_tf.search.answers import Answer
from sare_tf.search.prior import Prior

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets"
)


@pytest.fixture
def settings(tmp_path):
    """Of an index and an export that hold only what the protocol reads."""
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "index.json").write_text("{}")
    (tmp_path / "export" / "1").mkdir(parents=True)
    (tmp_path / "export" / "1" / "saved_model.pb").touch()
    (tmp_path / "export" / "1" / "sare_tf.json").write_text("{}")
    options = LocateOptions(
        index=tmp_path / "index", export=tmp_path / "export", photos=["-"]
    )
    return options.warm_settings


class _Echo:
    """Answers with the number of bytes, and counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, encoded, *, k, leave_out=None, prior=None):
        self.calls += 1
        self.prior = prior
        if b"bad" in encoded:
            raise ValueError("Expected another one.")
        if b"damaged" in encoded:
            raise Damaged("Expected a whole one.", path="cache/index")
        return [Answer(error=f"{len(one)} {k}") for one in encoded]


class _Threads:
    """Stands for the processes: each start is a server in a thread."""

    def __init__(self):
        self.locators = []
        self.threads = []
        self.paths = []

    def start(self, client):
        path = client._path("sock")
        path.unlink(missing_ok=True)
        self.locators.append(_Echo())
        server = warm_server.WarmServer(
            self.locators[-1],
            path=path,
            content=warm_protocol.content_of(client._settings),
            idle_s=client._idle_s,
            notes=[(20, "loaded it")],
        )
        self.threads.append(threading.Thread(target=server.serve))
        self.threads[-1].start()
        self.paths.append(path)

    def stop(self):
        """Ends them all: each is asked for another index."""
        for path in set(self.paths):
            with (
                contextlib.suppress(OSError),
                socket.socket(socket.AF_UNIX) as connection,
            ):
                connection.connect(str(path))
                with connection.makefile("rwb") as stream:
                    warm_protocol.send(stream, {"content": "another"})
                    assert warm_protocol.receive(stream) == (
                        {"status": "other"},
                        [],
                    )
        self.wait()

    def wait(self):
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture
def threads(monkeypatch, runtime_folder):
    started = _Threads()
    monkeypatch.setattr(
        warm_client.WarmLocator, "_start", lambda client: started.start(client)
    )
    yield started
    started.stop()


def _client(settings, idle_s=600.0):
    return warm_client.WarmLocator(settings, idle_s=idle_s)


def _texts(answers):
    return [answer.error for answer in answers]


def test_one_process_answers_all_calls_and_ends_when_idle(threads, settings):
    client = _client(settings)
    assert _texts(client([b"a", b"bcd"], k=3)) == ["1 3", "3 3"]
    assert _texts(client([], k=3)) == []
    # Another command with the same settings.
    assert _texts(_client(settings)([b""], k=5)) == ["0 5"]
    assert [locator.calls for locator in threads.locators] == [3]
    path = client._path("sock")
    assert path.is_socket()
    _client(settings, idle_s=0.1)([b"a"], k=1)
    threads.wait()
    assert not path.exists()
    assert _texts(client([b"a"], k=1)) == ["1 1"]
    assert len(threads.locators) == 2


def test_a_prior_is_sent_to_the_same_process(threads, settings):
    client = _client(settings)
    prior = Prior(near=(1, 2), within_m=5, conditions=("day",))
    for known in (prior, None):
        client([b"a"], k=3, prior=known)
        assert threads.locators[0].prior == known
    assert len(threads.locators) == 1


def test_a_changed_index_or_model_gets_another_process(threads, settings):
    client = _client(settings)
    client([b"a"], k=1)
    (folder,) = settings["index"]
    export = Path(settings["servable"]["export"])
    for number, change in enumerate(
        (
            Path(folder) / "index.json",
            Path(folder) / "calibration.json",
            export / "1" / "sare_tf.json",
        ),
        2,
    ):
        change.write_text('{"new": 1}')
        client([b"a"], k=1)
        assert len(threads.locators) == number
        client([b"a"], k=1)
        assert len(threads.locators) == number
    shutil.copytree(export / "1", export / "2")
    client([b"a"], k=1)
    assert len(threads.locators) == 5


def test_an_index_that_changes_while_it_is_loaded_is_loaded_again(
    threads, settings, monkeypatch
):
    (folder,) = settings["index"]
    start = warm_client.WarmLocator._start

    def start_and_change(client):
        start(client)
        if len(threads.locators) < changes:
            text = f'{{"change": {len(threads.locators)}}}'
            (Path(folder) / "index.json").write_text(text)

    monkeypatch.setattr(warm_client.WarmLocator, "_start", start_and_change)
    changes = 3
    assert _texts(_client(settings)([b"a"], k=1)) == ["1 1"]
    assert [locator.calls for locator in threads.locators] == [0, 0, 1]
    changes = 99
    (Path(folder) / "index.json").write_text("{}")
    with pytest.raises(ConnectionError, match="its log is .*[.]log"):
        _client(settings)([b"a"], k=1)


def test_a_process_that_ends_leaves_the_socket_of_the_next(
    threads, settings, monkeypatch
):
    """The first one ends only after the second has bound the same name."""
    client = _client(settings)
    client([b"a"], k=1)
    (folder,) = settings["index"]
    (Path(folder) / "index.json").write_text('{"change": 1}')
    is_started = threading.Event()
    removed = warm_server.WarmServer._remove_name
    first = threads.threads[0]

    def removed_late(server):
        if server._bound is None and threading.current_thread() is first:
            assert is_started.wait(20)
        removed(server)

    monkeypatch.setattr(warm_server.WarmServer, "_remove_name", removed_late)
    client([b"a"], k=1)
    is_started.set()
    first.join(20)
    client([b"a"], k=1)
    assert [locator.calls for locator in threads.locators] == [1, 2]


def test_other_code_gets_another_process(threads, settings, monkeypatch):
    client = _client(settings)
    client([b"a"], k=1)
    monkeypatch.setattr(warm_protocol, "__version__", "0.0")
    client([b"a"], k=1)
    assert len(threads.locators) == 2
    monkeypatch.setattr(warm_protocol, "_newest_source", lambda: 1)
    client([b"a"], k=1)
    assert len(threads.locators) == 3


def test_other_settings_have_processes_of_their_own(threads, settings):
    other = {**settings, "reject_below": 0.5}
    for _ in range(2):
        _client(settings)([b"a"], k=1)
        _client(other)([b"a"], k=1)
    assert [locator.calls for locator in threads.locators] == [2, 2]


def test_a_socket_that_a_kill_left_is_replaced(threads, settings):
    client = _client(settings)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(client._path("sock")))
    left.close()
    assert client._path("sock").is_socket()
    assert _texts(client([b"a"], k=1)) == ["1 1"]


def test_calls_at_the_same_time_start_one_process(threads, settings):
    results = []
    callers = [
        threading.Thread(
            target=lambda: results.extend(_client(settings)([b"abc"], k=2))
        )
        for _ in range(6)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert _texts(results) == ["3 2"] * 6
    assert [locator.calls for locator in threads.locators] == [6]


def test_an_error_is_raised_again_and_the_process_goes_on(threads, settings):
    client = _client(settings)
    with pytest.raises(ValueError, match=r"^Expected another one\.$"):
        client([b"bad"], k=1)
    with pytest.raises(Damaged, match=r"^Expected a whole one\.$") as damage:
        client([b"damaged"], k=1)
    assert damage.value.is_within("cache")
    assert not damage.value.is_within("cache/export")
    assert _texts(client([b"a"], k=1)) == ["1 1"]
    assert len(threads.locators) == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"[]\n",
        b'{"sizes": []}\n',
        b'{"sizes": [-1]}\n',
        b'{"sizes": [99], "content": "x"}\nshort',
        b'{"sizes": [' + b"536870912," * 9 + b"1]}\n",
    ],
)
def test_what_is_no_message_ends_nothing(threads, settings, sent):
    client = _client(settings)
    client([b"a"], k=1)
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(client._path("sock")))
        with contextlib.suppress(BrokenPipeError):
            other.sendall(sent)
    assert _texts(client([b"ab"], k=1)) == ["2 1"]
    assert len(threads.locators) == 1


def test_the_notes_of_loading_are_repeated_once(threads, settings, caplog):
    client = _client(settings)
    with caplog.at_level("INFO", logger="absl"):
        client([b"a"], k=1)
        client([b"a"], k=1)
    assert caplog.text.count("loaded it") == 1
    assert "which ends after" in caplog.text


def test_the_folder_is_only_of_this_user(runtime_folder):
    assert warm_protocol.runtime_folder() == runtime_folder
    assert runtime_folder.stat().st_mode & 0o777 == 0o700
    runtime_folder.chmod(0o750)
    with pytest.raises(OSError, match="only this user may enter.*mode 750"):
        warm_protocol.runtime_folder()
    runtime_folder.rmdir()
    runtime_folder.symlink_to(runtime_folder.parent)
    with pytest.raises(OSError, match="only this user may enter"):
        warm_protocol.runtime_folder()


def test_without_a_runtime_folder_it_is_among_temporary_files(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
    short = Path(tempfile.mkdtemp(prefix="w"))
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    assert warm_protocol.runtime_folder() == short / f"sare_tf-{os.getuid()}"
    shutil.rmtree(short)


def test_keys_differ_by_settings_and_interpreter(settings, monkeypatch):
    key = warm_protocol.key_of(settings)
    assert key == warm_protocol.key_of(json.loads(json.dumps(settings)))
    assert key != warm_protocol.key_of({**settings, "exact": True})
    monkeypatch.setattr(sys, "executable", "/other/python")
    assert key != warm_protocol.key_of(settings)


def test_relative_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = LocateOptions(index="a,b", export="e", photos=["-"])
    settings = options.warm_settings
    assert settings["index"] == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert settings["servable"]["export"] == str(tmp_path / "e")


def test_a_command_that_a_process_answers_needs_no_tensorflow(
    settings, threads, tmp_path
):
    """In another process, where an import of TensorFlow or pandas fails."""
    for name in ("tensorflow", "pandas", "matplotlib", "PIL"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name}')")
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"four")
    _client(settings)([b"a"], k=1)
    done = subprocess.run(
        [
            sys.executable,
            *("-m", "sare_tf.locate", "--json", "--keep_warm"),
            *("--keep_warm_minutes=0.02", f"--index={settings['index'][0]}"),
            *(f"--export={settings['servable']['export']}", str(photo)),
        ],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    written = json.loads(done.stdout)
    assert (written["photo"], written["error"]) == (str(photo), "4 5")
    assert len(threads.locators) == 1, done.stderr
