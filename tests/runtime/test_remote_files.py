"""Ranges of files on a server that goes wrong in the ways servers do."""

import os

import pytest
import tensorflow as tf
from toy_storage import SlowStorage

from sare_tf.runtime import remote_files
from sare_tf.runtime.remote_files import RemotePath

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def storage(tmp_path, monkeypatch):
    monkeypatch.setattr(remote_files, "_PAUSE_S", 0.0)
    (tmp_path / "a file").write_bytes(CONTENT)
    with SlowStorage(tmp_path) as server:
        server.path = tmp_path / "a file"
        server.file = f"{server.address}/a file"
        yield server


def test_a_range_is_that_of_the_file(storage):
    file = remote_files.opened(storage.file)
    assert file.size == len(CONTENT)
    assert remote_files.read(storage.file) == CONTENT
    for start, length in ((0, 1), (300, 5000), (len(CONTENT) - 7, 7)):
        content = remote_files.read_range(file, start, length)
        assert content == CONTENT[start : start + length]
    whole = remote_files.read_range(file, 0, len(CONTENT))
    assert whole == CONTENT
    with pytest.raises(ValueError, match="within 10240 bytes. Received: bytes"):
        remote_files.read_range(file, 10_000, 1000)


def test_failures_that_may_pass_are_repeated(storage):
    file = remote_files.opened(storage.file)
    storage.faults += ["503", "broken", "503"]
    assert remote_files.read_range(file, 9, 600) == CONTENT[9:609]
    assert storage.requests[1:] == [("GET", "/a%20file", ("9", "608"))] * 4


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("503", "the answer 503"), ("broken", "IncompleteRead")],
)
def test_a_failure_that_does_not_pass_is_named(storage, fault, reason):
    file = remote_files.opened(storage.file)
    # One more, as a connection that was open before is not counted.
    storage.faults += [fault] * (remote_files.ATTEMPTS + 1)
    with pytest.raises(ConnectionError, match=f"{reason}.*, 7 times. Run the"):
        remote_files.read_range(file, 9, 600)
    storage.faults.clear()
    assert remote_files.read_range(file, 0, 2) == CONTENT[:2]


def test_a_server_that_is_gone_is_named(storage):
    file = remote_files.opened(storage.file)
    gone = remote_files.OpenedFile("http://127.0.0.1:9/x", 5)
    with pytest.raises(ConnectionError, match="Refused.*when the server can"):
        remote_files.read_range(gone, 0, 5)
    assert file.tag


def test_a_server_without_ranges_is_refused(storage):
    file = remote_files.opened(storage.file)
    storage.faults.append("whole")
    with pytest.raises(ConnectionError, match="answers ranges.*Received: all"):
        remote_files.read_range(file, 5, 10)


@pytest.mark.parametrize(
    ("content", "what"), [(CONTENT[:99], "size"), (CONTENT[::-1], "ETag")]
)
def test_a_file_that_changes_is_refused(storage, content, what):
    file = remote_files.opened(storage.file)
    storage.path.write_bytes(content)
    os.utime(storage.path, (5, 5))
    with pytest.raises(ConnectionError, match=f"do not change.*another {what}"):
        remote_files.read_range(file, 5, 10)
    # Who opens it again gets what is there now.
    file = remote_files.opened(storage.file)
    assert remote_files.read_range(file, 5, 10) == content[5:15]


def test_a_file_that_is_not_there(storage):
    with pytest.raises(FileNotFoundError, match="other. Received: the answer"):
        remote_files.opened(f"{storage.address}/other")


def test_a_file_that_tensorflow_reads():
    address = "ram://folder/file"
    with tf.io.gfile.GFile(address, "wb") as file:
        file.write(CONTENT)
    opened = remote_files.opened(address)
    assert opened.size == len(CONTENT)
    assert remote_files.read(address) == CONTENT
    assert remote_files.read_range(opened, 300, 700) == CONTENT[300:1000]
    tf.io.gfile.remove(address)
    with pytest.raises(FileNotFoundError, match=f"{address}. Received: none"):
        remote_files.read(address)
    with pytest.raises(ConnectionError, match="has to be copied"):
        remote_files.read("nothing://bucket/file")


def test_the_address_of_a_folder_stays_one():
    path = RemotePath("https://host/records/")
    assert str(path) == "https://host/records"
    assert str(path / "a" / "b.tfrecord") == "https://host/records/a/b.tfrecord"
    assert path.absolute() == path.resolve() == path
    assert path.name == "records"
