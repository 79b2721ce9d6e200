"""The bytes of a record in a file of records, and the image in them.

A record is its length (8 bytes), a checksum of it (4), an Example and a
checksum of that (4). The digest of the image, which is in the manifest, stands
for the checksums here.
"""

import hashlib

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

# What a record has beside its Example.
FRAME_BYTES = 16
_DIGEST_DTYPE = np.dtype("<i8")


def encoded_image(frame: bytes, digest: np.int64) -> bytes | None:
    """Returns the encoded image of a record.

    Args:
        frame: bytes of the whole record.
        digest: `short_digest` of the image.

    Returns:
        The image; None where the bytes are not those of that image's record.
    """
    try:
        example = tf.train.Example.FromString(frame[12:-4])
        values = example.features.feature["image/encoded"].bytes_list.value
        (encoded,) = values
    except (DecodeError, ValueError):
        return None
    return encoded if short_digest(encoded) == digest else None


def short_digest(encoded: bytes) -> np.int64:
    """Returns the first 64 bits of a SHA-256, to save memory for each row."""
    digest = hashlib.sha256(encoded).digest()
    return np.frombuffer(digest, _DIGEST_DTYPE, count=1)[0].astype(np.int64)


def short_digests(digests: list[str]) -> np.ndarray:
    """Returns the first 64 bits of hex digests, int64 [B]."""
    joined = "".join([digest[:16] for digest in digests])
    return np.frombuffer(bytes.fromhex(joined), _DIGEST_DTYPE).astype(np.int64)
