"""The server's certificate, and one that it asks clients for."""

import numpy as np
import pytest
import toy_server
from toy_client import BOTH, connect, photographs

from sare_tf import serving


@pytest.fixture(scope="module")
def tls(export, tmp_path_factory):
    trustme = pytest.importorskip("trustme", reason="makes certificates")
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    paths = {"root_certificates": folder / "root.pem"}
    authority.cert_pem.write_to_path(str(paths["root_certificates"]))
    for name, host in (("server", "localhost"), ("client", "client.test")):
        issued = authority.issue_cert(host)
        issued.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
    stranger = folder / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    paths["certificate"] = folder / "client.pem"
    paths["private_key"] = folder / "client.key"
    certificates = (
        folder / "server.pem",
        folder / "server.key",
        paths["root_certificates"],
    )
    with toy_server.serve(export / "1", certificates=certificates) as toy:
        yield toy, paths, stranger


@BOTH
def test_tls(tls, export, protocol):
    toy, paths, _ = tls
    assert "s://" in getattr(toy, protocol)
    remote = connect(toy, protocol, **paths)
    expected, _ = serving.load(export)(photographs())
    np.testing.assert_allclose(remote(photographs())[0], expected, atol=1e-6)


@BOTH
def test_tls_that_fails(tls, protocol):
    toy, paths, stranger = tls
    options = {"attempts": 2, "request_timeout_s": 5.0}
    root = {"root_certificates": paths["root_certificates"]}
    toy.requests.clear()
    for certificates in ({**paths, "root_certificates": stranger}, root, {}):
        with pytest.raises(ConnectionError, match="Expected .*localhost"):
            connect(toy, protocol, **certificates, **options)
    assert not toy.requests


def test_certificates_that_cannot_be(tls):
    toy, paths, _ = tls

    def load(scheme="grpcs", **options):
        address = f"{scheme}://localhost:1"
        return serving.load(serving.Server(address=address, **options))

    with pytest.raises(ValueError, match="address with TLS.*private_key="):
        load("http", private_key=paths["private_key"])
    with pytest.raises(ValueError, match="and its private key, or neither"):
        load(certificate=paths["certificate"])
    nothing = paths["certificate"].with_name("nothing.pem")
    with pytest.raises(FileNotFoundError, match="root_certificates=.*nothing"):
        load(root_certificates=nothing)
    key = paths["private_key"]
    with pytest.raises(ValueError, match="certificates and a key .* in PEM"):
        load(root_certificates=key)
    with pytest.raises(ValueError, match="certificates and a key .* in PEM"):
        load(certificate=key, private_key=key)
