"""Codes of descriptors, against plain loops and over the life of an index."""

import numpy as np
import pytest

from sare_tf.search import codes, descriptor_arrays, exact_search
from sare_tf.search.codes import DecodedRows

NAMES = ("int8", "product", "binary")
# 30 is no multiple of the numbers of a group.
DIMENSIONS = (32, 30)


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(params=DIMENSIONS, ids="{} numbers".format)
def rows(request):
    rng = np.random.default_rng(3)
    return np.float32(_unit(rng.normal(0.2, 1, (600, request.param))))


@pytest.mark.parametrize("name", NAMES)
def test_a_code_has_the_stated_length(name, rows):
    codec = codes.fit(name, rows)
    encoded = codec.encode(rows)
    assert encoded.shape == (600, codes.length_of(name, rows.shape[1]))
    assert (encoded.dtype, encoded.shape[1]) == (codec.dtype, codec.length)
    decoded = codec.decode(encoded)
    assert (decoded.dtype, decoded.shape) == (np.float32, rows.shape)
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, rtol=1e-6)


def test_int8_is_the_nearest_of_255_numbers(rows):
    codec = codes.fit("int8", rows)
    encoded = codec.encode(rows)
    for row, code in zip(rows[:20], encoded[:20], strict=True):
        largest = max(abs(number) for number in row.tolist())
        expected = [round(number * 127 / largest) for number in row.tolist()]
        assert np.abs(code - np.array(expected)).max() == 0
        expected = np.array(expected) / np.linalg.norm(expected)
        np.testing.assert_allclose(codec.decode(code[None])[0], expected, 1e-6)


def test_product_codes_name_the_nearest_point_of_each_group(rows):
    codec = codes.fit("product", rows)
    points = codec.tables()["points"]
    dimension = rows.shape[1]
    for row, code in zip(rows[:20], codec.encode(rows[:20]), strict=True):
        decoded = []
        for group, number in enumerate(code):
            numbers = np.zeros(4)
            part = row[4 * group : 4 * group + 4]
            numbers[: len(part)] = part
            far = [np.sum((numbers - point) ** 2) for point in points[group]]
            assert far[number] <= min(far) + 1e-6
            decoded += points[group][number].tolist()
        decoded = np.array(decoded[:dimension])
        np.testing.assert_allclose(
            codec.decode(code[None])[0],
            decoded / np.linalg.norm(decoded),
            atol=1e-6,
        )


def test_bits_stand_for_the_means_above_and_below_the_mean(rows):
    codec = codes.fit("binary", rows)
    mean = rows.mean(axis=0)
    expected = np.empty_like(rows)
    for number in range(rows.shape[1]):
        column = rows[:, number]
        above = column > mean[number]
        high, low = column[above].mean(), column[~above].mean()
        expected[:, number] = np.where(column > (high + low) / 2, high, low)
    np.testing.assert_allclose(
        codec.decode(codec.encode(rows)), _unit(expected), atol=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_decoded_rows_are_indexed_as_an_array(name, rows):
    codec = codes.fit(name, rows)
    stored = DecodedRows(codec.encode(rows), codec)
    whole = codec.decode(stored.codes)
    np.testing.assert_array_equal(np.asarray(stored), whole)
    keys = (3, slice(5, 9), np.array([4, 4, 1]), np.array([[1, 2], [3, 4]]))
    for key in keys:
        np.testing.assert_array_equal(stored[key], whole[key])
    assert (stored.shape, len(stored), stored.ndim) == (rows.shape, 600, 2)
    with pytest.raises(ValueError, match="rows are decoded"):
        np.array(stored, copy=False)
    np.testing.assert_array_equal(
        exact_search.nearest(rows[:7], stored, 5)[0],
        exact_search.nearest(rows[:7], whole, 5)[0],
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_codec_is_written_and_read(name, rows, tmp_path):
    codec = codes.fit(name, rows)
    codes.write(codec, tmp_path / "codec.npz")
    again = codes.read(tmp_path / "codec.npz")
    assert (again.name, again.dimension) == (name, rows.shape[1])
    np.testing.assert_array_equal(again.encode(rows), codec.encode(rows))
    encoded = codec.encode(rows)
    np.testing.assert_array_equal(again.decode(encoded), codec.decode(encoded))


def test_numbers_that_never_vary_are_kept():
    rows = np.zeros((300, 16), np.float32)
    rows[:, :4] = 0.5
    for name in NAMES:
        codec = codes.fit(name, rows)
        np.testing.assert_allclose(
            codec.decode(codec.encode(rows)), rows, atol=1e-6
        )


def test_product_codes_need_images():
    rows = _unit(np.random.default_rng(0).normal(size=(255, 8)))
    with pytest.raises(ValueError, match="at least 256 images.*Received: 255"):
        codes.fit("product", rows)


@pytest.mark.parametrize("damage", ["cut", "other", "points"])
def test_a_damaged_codec_is_refused(damage, rows, tmp_path):
    path = tmp_path / "codec.npz"
    codes.write(codes.fit("binary", rows), path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:99])
    elif damage == "other":
        np.savez(path, name="ternary", dimension=4)
    else:
        np.savez(path, name="binary", dimension=4, points=np.zeros((9, 2, 2)))
    with pytest.raises(ValueError, match="codec.npz cannot be read"):
        codes.read(path)


def test_codes_of_another_codec_are_refused(rows, tmp_path):
    np.save(tmp_path / "codes.npy", np.zeros((5, 3), np.uint8))
    codes.write(codes.fit("int8", rows), tmp_path / "codec.npz")
    with pytest.raises(ValueError, match=r"codes.npy holds uint8 \(5, 3\)"):
        descriptor_arrays.read(tmp_path)
