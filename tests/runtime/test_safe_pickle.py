import builtins
import os
import pickle

import numpy as np
import pytest

from sare_tf.runtime import safe_pickle

VALUES = {
    "imlist": ["a", "b"],
    "gnd": [
        {"bbx": [1.5, 2, 3, 4], "easy": np.array([3, 1]), "n": np.int64(7)}
    ],
    "empty": [np.array([], int), b""],
    "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
    "ragged": np.array([[0, [1, 2]], [1, [3]]], object),
    "more": (1, None, True, b"bytes", {1, 2}, range(3)),
}


def same(a, b):
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list):
        for left, right in zip(a, b, strict=True):
            same(left, right)
    else:
        assert a == b


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_and_arrays_come_back(tmp_path, protocol):
    values = dict(VALUES)
    if protocol < 4:  # Older ones build a set by its class.
        values["more"] = values["more"][:4]
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(values, protocol))
    same(safe_pickle.load(path), values)


def test_a_pickle_of_python_2(tmp_path):
    """{'imlist': ['a'], 'easy': array([1, 2])}, as Python 2 writes it."""
    path = tmp_path / "a.pkl"
    path.write_bytes(
        b"\x80\x02}q\x00(U\x06imlistq\x01]q\x02U\x01aq\x03aU\x04easyq\x04"
        b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06"
        b"K\x00\x85q\x07U\x01bq\x08\x87q\x09Rq\x0a(K\x01K\x02\x85q\x0bcnumpy\n"
        b"dtype\nq\x0cU\x02i8q\x0dK\x00K\x01\x87q\x0eRq\x0f(K\x03U\x01<q\x10"
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x11b\x89U\x10"
        b"\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00"
        b"q\x12tq\x13bu."
    )
    same(safe_pickle.load(path), {"imlist": ["a"], "easy": np.array([1, 2])})


class _Evil:
    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("evil", "name"),
    [
        (_Evil(os.system, "touch MARK"), "posix.system"),
        (_Evil(builtins.eval, "open('MARK', 'w')"), "eval"),
        (_Evil(builtins.getattr, "text", "upper"), "getattr"),
        (_Evil(np.fromfile, "MARK"), "names"),
    ],
)
def test_what_a_pickle_names_is_not_run(
    tmp_path, monkeypatch, evil, name, protocol
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"imlist": [evil]}, protocol))
    with pytest.raises(ValueError, match=f"{name}.*Get the file again"):
        safe_pickle.load(path)
    assert os.listdir(tmp_path) == ["a.pkl"]


def test_the_same_in_a_npy_file(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([[0, _Evil(os.system, "touch MARK")]], object))
    with pytest.raises(ValueError, match=r"it names posix\.system"):
        safe_pickle.load_npy(path)


@pytest.mark.parametrize(
    "array", [VALUES["ragged"], VALUES["floats"], np.array(["a", "bc"])]
)
def test_npy(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    same(safe_pickle.load_npy(tmp_path / "a.npy"), array)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps(VALUES)[:-20],
        # An array that starts with room for 2**60 bytes.
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x10\x85U\x01b\x87R.",
        # codecs.encode by something else than latin1.
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13"
        b"\x86R.",
        # The class of arrays, called.
        b"\x80\x02cnumpy\nndarray\nK\x05\x85R.",
    ],
)
def test_damaged_files(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    for load in (safe_pickle.load, safe_pickle.load_npy):
        with pytest.raises(ValueError, match="Expected a file of plain values"):
            load(tmp_path / "a")


def test_an_absent_file(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        safe_pickle.load(tmp_path / "a")


def test_an_array_of_another_shape(tmp_path):
    whole = tmp_path / "a.npy"
    np.save(whole, VALUES["ragged"])
    whole.write_bytes(whole.read_bytes().replace(b"(2, 2)", b"(4, 1)"))
    with pytest.raises(ValueError, match="has not the shape of its header"):
        safe_pickle.load_npy(whole)
