"""Files embedded by an export in this process, and by one on a server."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import toy_search

from sare_tf import serving


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return toy_search.export(tmp_path_factory.mktemp("toy") / "export")


@contextlib.contextmanager
def local(export):
    yield serving.load(export)


@contextlib.contextmanager
def on_a_server(export):
    import toy_server

    with toy_server.serve(export / "1") as toy:
        yield serving.load(toy.rest)


@pytest.fixture
def paths(tmp_path):
    """Seven photographs; the third is absent and the sixth is damaged."""
    paths = [tmp_path / f"{number}.jpg" for number in range(7)]
    for number, path in enumerate(paths):
        if number != 2:
            path.write_bytes(toy_search.jpeg(number, 0))
    paths[5].write_bytes(b"no image")
    return paths


@pytest.mark.parametrize("connected", [local, on_a_server])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_descriptors_and_errors(export, paths, connected, batch_size):
    with connected(export) as servable:
        descriptors, errors = servable.embed_files(paths, batch_size=batch_size)
    assert descriptors.dtype == np.float32
    one_by_one = serving.load(export)
    for row, path in enumerate(paths):
        if row in (2, 5):
            assert not descriptors[row].any()
        else:
            expected = one_by_one([path.read_bytes()])[0][0]
            np.testing.assert_allclose(descriptors[row], expected, atol=1e-6)
    assert list(errors) == [paths[2], paths[5]]
    assert errors[paths[2]].startswith("cannot be read: [Errno 2] No such")
    assert errors[paths[5]] == "cannot be decoded as JPEG or PNG"


def test_a_batch_of_files_that_cannot_be_read(export, tmp_path):
    paths = [str(tmp_path), str(tmp_path / "absent")]
    descriptors, errors = serving.load(export).embed_files(paths)
    np.testing.assert_array_equal(descriptors, np.zeros((2, 48), np.float32))
    assert list(errors) == paths
    assert "Is a directory" in errors[paths[0]]


def test_any_iterable_of_paths(export, paths):
    servable = serving.load(export)
    folder = Path(paths[0]).parent
    descriptors, errors = servable.embed_files(sorted(folder.iterdir()))
    assert (len(descriptors), len(errors)) == (6, 1)
    descriptors, errors = servable.embed_files(iter(()))
    assert (descriptors.shape, errors) == ((0, toy_search.DIMENSION), {})
    with pytest.raises(ValueError, match="Received: batch_size=0"):
        servable.embed_files(paths, batch_size=0)
