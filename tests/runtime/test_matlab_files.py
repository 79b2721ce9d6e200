"""MATLAB files: what SciPy reads, and no damage that ends the process."""

import numpy as np
import pytest
import scipy.io

from sare_tf.runtime import matlab_files

VALUES = {
    "net": {
        "layers": np.array(
            [
                {"type": "conv", "weights": np.ones((3, 4, 2), np.float32)},
                {"type": "pool", "pad": [1, 1, 0, 0], "name": "größe"},
            ],
            dtype=object,
        ),
        "complex": np.array([1 + 2j, 3]),
        "logical": np.array([True, False]),
        "empty": np.zeros((0, 3)),
        "bytes": np.arange(4, dtype=np.uint8),
    },
    "clsts": np.arange(20.0).reshape(5, 4),
    "text": "hello",
}


@pytest.mark.parametrize("do_compression", [False, True])
def test_it_reads_what_scipy_reads(tmp_path, do_compression):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, VALUES, do_compression=do_compression)
    expected = scipy.io.loadmat(path, simplify_cells=True)
    found = matlab_files.load(path, simplify_cells=True)
    np.testing.assert_equal(found, expected)
    found = matlab_files.load(path, names=["clsts"])
    assert [name for name in found if name[0] != "_"] == ["clsts"]
    np.testing.assert_array_equal(found["clsts"], VALUES["clsts"])


def test_files_of_version_4_and_in_the_other_byte_order(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"a": np.eye(3)}, format="4")
    np.testing.assert_array_equal(matlab_files.load(path)["a"], np.eye(3))
    name = b"a".ljust(8, b"\0")
    # By hand: flags, dimensions, name, one double; big-endian.
    content = b"MATLAB 5.0".ljust(124) + b"\1\0MI"
    parts = (
        *(b"\0\0\0\6\0\0\0\10", b"\0\0\0\6\0\0\0\0"),
        *(b"\0\0\0\5\0\0\0\10", b"\0\0\0\1\0\0\0\1"),
        *(b"\0\0\0\1\0\0\0\1", name, b"\0\0\0\11\0\0\0\10"),
        np.array(2.5, ">f8").tobytes(),
    )
    inside = b"".join(parts)
    content += b"\0\0\0\16" + len(inside).to_bytes(4, "big") + inside
    path.write_bytes(content)
    assert matlab_files.load(path)["a"] == [[2.5]]


def test_version_7_3_is_left_to_others(tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(b"MATLAB 7.3".ljust(124) + b"\0\2IM" + bytes(400))
    with pytest.raises(NotImplementedError):
        matlab_files.load(path)


@pytest.mark.parametrize("do_compression", [False, True])
def test_no_damage_ends_the_process(tmp_path, do_compression):
    """Each of these is read by SciPy, or refused by a ValueError."""
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, VALUES, do_compression=do_compression)
    whole, outcomes = path.read_bytes(), set()
    for number in range(300):
        rng = np.random.default_rng(number)
        damaged = bytearray(whole)
        at = rng.integers(124, len(whole), 1 + number % 3)
        damaged[at[0]] = rng.choice([0, 1, 127, 128, 255])
        for position in at[1:]:
            damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            matlab_files.load(path)
            outcomes.add("read")
        except ValueError:
            outcomes.add("refused")
    # zlib's own checksum covers what is compressed.
    assert outcomes == ({"refused"} if do_compression else {"read", "refused"})


def test_a_type_that_is_none(tmp_path):
    """SciPy 1.17 takes it for an index into an array, and crashes."""
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"a": np.eye(3)})
    content = bytearray(path.read_bytes())
    # The type of the numbers, doubles: after tag, flags, dimensions and name.
    at = content.index(np.eye(3).tobytes()) - 8
    assert content[at] == 9
    content[at : at + 4] = (2**15).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"type 32768 .* byte {at}"):
        matlab_files.load(path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c[:-20], "which do not fit"),
        (lambda c: c + bytes(5), "cut off"),
        (lambda c: c[:128] + b"\x0e\0\0\0\0\0\0\0", "0 bytes"),
        (
            lambda c: c.replace(
                np.int32([5, 4]).tobytes(), np.int32([5, 5]).tobytes()
            ),
            "160 bytes for 25 numbers",
        ),
        (
            lambda c: c.replace(
                np.int32([5, 4]).tobytes(), np.int32([5, -4]).tobytes()
            ),
            r"dimensions \(5, -4\)",
        ),
    ],
    ids=["cut", "more", "empty", "dimensions", "negative"],
)
def test_what_is_wrong_is_said(tmp_path, edit, message):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"clsts": VALUES["clsts"]})
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        matlab_files.load(path)
