"""Kinds of files are told by their content; arrays keep names and numbers."""

import json
import struct
import zipfile

import h5py
import numpy as np
import pytest

from sare_tf.model.pretrained import (
    array_ledger,
    safetensors_file,
    torch_file,
    weights_file,
)

ARRAYS = {
    "features.0.weight": np.arange(6, dtype=np.float32).reshape(1, 2, 3),
    "bias": np.float32([0.5, -1]),
}


def write_safetensors(path, arrays, *, types=None, cut=0):
    """By hand: the length of the header, the header, the numbers."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        begin = len(data)
        data += array.tobytes()
        header[name] = {
            "dtype": (types or {}).get(name, "F32"),
            "shape": list(array.shape),
            "data_offsets": [begin, len(data)],
        }
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + data
    path.write_bytes(content[: len(content) - cut])


def write_npz(path):
    with path.open("wb") as file:  # savez would add .npz to a path
        np.savez(file, **ARRAYS)


def write_keras(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", b"")


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file["a"] = 1


WRITERS = {
    "torch": lambda path: torch_file.write(path, {"state_dict": ARRAYS}),
    "safetensors": lambda path: write_safetensors(path, ARRAYS),
    "npz": write_npz,
    "keras": write_keras,
    "hdf5": write_hdf5,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_content_tells_the_kind(tmp_path, kind):
    path = tmp_path / "weights.h5"
    WRITERS[kind](path)
    assert weights_file.kind_of(path) == kind
    if kind not in weights_file.ARRAYS_BY_NAME:
        with pytest.raises(ValueError, match=f"h5', which is {kind}. If it"):
            weights_file.read_arrays(path)
        return
    arrays = weights_file.read_arrays(path)
    assert arrays.keys() == ARRAYS.keys()
    for name, expected in ARRAYS.items():
        assert arrays[name].shape == expected.shape
        np.testing.assert_array_equal(arrays[name].numpy(), expected)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>Quota exceeded</html>",
        # A header that would be longer than the file.
        struct.pack("<Q", 1000) + b"{}",
    ],
)
def test_other_files_have_no_kind(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert weights_file.kind_of(path) is None
    with pytest.raises(ValueError, match="which is none of them.*a web page"):
        weights_file.read_arrays(path)


def test_another_zip_archive_has_no_kind(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("photo.jpg", b"")
    assert weights_file.kind_of(tmp_path / "a.zip") is None


def test_what_is_written_is_read(tmp_path):
    """Transposed, and of another type."""
    path = tmp_path / "a"
    array = np.arange(6.0).reshape(2, 3).T
    safetensors_file.write(path, {"a": array})
    read = safetensors_file.read(path)["a"]
    assert read.shape == (3, 2)
    assert read.numpy().dtype == np.float32
    np.testing.assert_array_equal(read.numpy(), array)


def test_half_precision_becomes_float32(tmp_path):
    """bfloat16 is the upper half of float32: 1.5 is 3fc0, -2 is c000."""
    path = tmp_path / "a"
    arrays = {
        "half": np.float16([1.5, -2]),
        "bfloat": np.uint16([0x3FC0, 0xC000]),
        "steps": np.int64([7]),
    }
    types = {"half": "F16", "bfloat": "BF16", "steps": "I64"}
    write_safetensors(path, arrays, types=types)
    ledger = array_ledger.ArrayLedger(path, weights_file.read_arrays(path))
    for name in ("half", "bfloat"):
        array = ledger.take(name, (2,))
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, [1.5, -2])
    with pytest.raises(ValueError, match="'steps'.*floating.*dtype=int64"):
        ledger.take("steps", (1,))


def test_safetensors_that_are_refused(tmp_path):
    path = tmp_path / "a"
    write_safetensors(path, ARRAYS, cut=4)
    with pytest.raises(ValueError, match="Expected a whole file of safetens"):
        weights_file.read_arrays(path)
    write_safetensors(path, {"a": np.ones(2, np.int8)}, types={"a": "F8_E4M3"})
    with pytest.raises(ValueError, match=r"a: .*float8.*as float32"):
        weights_file.read_arrays(path)["a"].numpy()


def test_npz_that_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.array([{}], object))
    with pytest.raises(ValueError, match="that numpy.savez saved.*pickle"):
        weights_file.read_arrays(path)
    np.savez(path, a=np.ones(9))
    monkeypatch.setattr(weights_file, "_MOST_BYTES", 40)
    with pytest.raises(ValueError, match=r"saved.*\(200 bytes\)"):
        weights_file.read_arrays(path)
