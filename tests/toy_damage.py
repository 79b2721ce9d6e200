"""Damage to files, and metadata that are edited with or without digests."""

import json

from sare_tf.runtime import sealed_json


def flip(path, at, *, bit=0):
    """Flips a bit of a byte."""
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1 << bit
    path.write_bytes(bytes(raw))


def edit(path, **values):
    """Changes values of a JSON file that holds its own digest, and remakes it.

    None of the other digests that it holds is made again.
    """
    content = json.loads(path.read_text())
    content.pop("sha256", None)
    sealed_json.write(path, {**content, **values})


def forget_digests(path, **values):
    """Changes a JSON file to what version 0.1 wrote, and changes values."""

    def without(content):
        if isinstance(content, list):
            return [without(item) for item in content]
        if not isinstance(content, dict):
            return content
        return {
            name: without(value)
            for name, value in content.items()
            if name not in ("digests", "sha256")
        }

    content = without(json.loads(path.read_text()))
    path.write_text(json.dumps(content | values))
