"""What the tests of `locate` look up photographs in."""

import pytest


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """Folders of an index and its export, see `toy_located`."""
    import toy_located

    return toy_located.build(tmp_path_factory.mktemp("toy_located"))


@pytest.fixture
def records(inputs):
    """The records that the index was built from."""
    return inputs["index"].parent / "records"


@pytest.fixture
def photos(tmp_path):
    """Photographs of two places."""
    import toy_located

    return toy_located.photographs(tmp_path)
