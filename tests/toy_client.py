"""What tests of the client of TF Serving share."""

import pytest
import toy_search

from sare_tf import serving

PROTOCOLS = ("grpc", "rest")
# Tests do not wait.
QUICK = {"backoff_s": 0.001}
BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)


def connect(toy, protocol, path="", **options):
    address = getattr(toy, protocol) + path
    options = {**QUICK, **options}
    return serving.load(serving.Server(address=address, **options))


def photographs(count=7):
    """Encoded images of which number 2 is not one."""
    encoded = [toy_search.jpeg(place, 0) for place in range(count)]
    return [*encoded[:2], b"no image", *encoded[2:]]
