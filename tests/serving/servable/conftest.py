"""A server over the toy export, for all tests of the client."""

import pytest
import toy_search


@pytest.fixture(scope="package")
def export(tmp_path_factory):
    return toy_search.export(tmp_path_factory.mktemp("toy") / "export")


@pytest.fixture(scope="package")
def other(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "other"
    return toy_search.export(folder, length=1.00001)


@pytest.fixture(scope="package")
def shared(export, other):
    """A server for all, version 2 being another model."""
    import toy_server

    folders = (export / "1", other / "1")
    with toy_server.serve(*folders, labels={"stable": 2}) as toy:
        yield toy


@pytest.fixture
def toy(shared):
    """The server as it was at first."""
    import toy_server

    yield shared
    shared.rest_of_requests()
    fresh = toy_server.Toy(shared.versions, shared.labels)
    for name in ("requests", "refusals", "alter", "before", "latest"):
        setattr(shared, name, getattr(fresh, name))
