"""Damage to bytes and to JSON, the same for the same seed."""

import json

import numpy as np

# What a value of JSON is replaced by.
_VALUES = (None, -1, 0, 1e300, "", "x", [], {}, [[0]], {"a": 1}, True, 10**30)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Damages bytes in one way, or in up to three."""
    for _ in range(rng.integers(1, 4) if rng.random() < 0.2 else 1):
        kind = rng.choice(_KINDS)
        content = kind(content, rng)
    return content


def mutated_json(content: bytes, rng: np.random.Generator) -> bytes:
    """Damages JSON as text, or in one of its values."""
    if rng.random() < 0.4:
        return mutated(content, rng)
    if rng.random() < 0.05:
        return b"[" * 10_000 + content
    root = json.loads(content)
    places = list(_places(root))
    holder, key = places[rng.integers(len(places))]
    if rng.random() < 0.3:
        del holder[key]
    else:
        holder[key] = _VALUES[rng.integers(len(_VALUES))]
    return json.dumps(root).encode()


def _places(value):
    """Yields (holder, key) of every value within a value."""
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in list(keys):
            yield value, key
            yield from _places(value[key])


def _position(content, rng):
    return int(rng.integers(max(1, len(content))))


def _flip(content, rng):
    if not content:
        return b"\0"
    raw = bytearray(content)
    raw[_position(raw, rng)] ^= 1 << int(rng.integers(8))
    return bytes(raw)


def _set_byte(content, rng):
    if not content:
        return b"\xff"
    raw = bytearray(content)
    raw[_position(raw, rng)] = int(rng.choice([0, 1, 127, 128, 255]))
    return bytes(raw)


def _zero_block(content, rng):
    start = _position(content, rng)
    size = min(len(content) - start, int(rng.integers(1, 600)))
    return content[:start] + bytes(size) + content[start + size :]


def _cut(content, rng):
    return content[: _position(content, rng)]


def _insert(content, rng):
    start = _position(content, rng)
    return (
        content[:start] + rng.bytes(int(rng.integers(1, 20))) + content[start:]
    )


def _remove(content, rng):
    start = _position(content, rng)
    return content[:start] + content[start + int(rng.integers(1, 100)) :]


def _swap(content, rng):
    size = int(rng.integers(1, 64))
    if len(content) < 2 * size:
        return content[::-1]
    raw = bytearray(content)
    a = int(rng.integers(len(raw) - 2 * size + 1))
    b = int(rng.integers(a + size, len(raw) - size + 1))
    raw[a : a + size], raw[b : b + size] = raw[b : b + size], raw[a : a + size]
    return bytes(raw)


def _repeat(content, rng):
    start = _position(content, rng)
    block = content[start : start + int(rng.integers(1, 300))]
    return content[:start] + block + content[start:]


def _number(content, rng):
    """Another 32-bit number, such as a size that is too large."""
    if len(content) < 4:
        return b"\xff\xff\xff\x7f"
    start = int(rng.integers(len(content) - 3))
    value = int(rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**24]))
    order = "little" if rng.random() < 0.5 else "big"
    return content[:start] + value.to_bytes(4, order) + content[start + 4 :]


_KINDS = (
    *(_flip, _set_byte, _zero_block, _cut, _insert, _remove, _swap, _repeat),
    _number,
)
