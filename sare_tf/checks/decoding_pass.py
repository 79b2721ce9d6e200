"""One pass of threads that read and decode every image of a check."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sare_tf.checks.image_contents import (
    DIGEST_BYTES,
    ImageContents,
    undecoded,
)
from sare_tf.checks.sources import DatasetSource, RecordsSource
from sare_tf.dataset import image_decoding, jpeg_damage
from sare_tf.runtime import progress

# Images that wait for each thread, so that memory is bounded.
_AHEAD = 4


def decode(
    source: DatasetSource | RecordsSource, num_workers: int
) -> ImageContents:
    """Reads and decodes every image.

    Threads suffice: most of the work releases the interpreter's lock.

    Args:
        source: the dataset or records.
        num_workers: threads; 0: one per core.
    """
    contents = undecoded(source.table)
    num_workers = num_workers or os.cpu_count()
    with (
        ThreadPoolExecutor(num_workers) as pool,
        progress.bar("check", total=len(source.table)) as bar,
    ):
        for row, result in enumerate(_results(source, pool, num_workers)):
            bar.update()
            if isinstance(result, str):
                contents.problems[row] = result
                continue
            digest, size, traits, complaint = result
            contents.digests[row] = np.frombuffer(digest, np.uint8)
            contents.sizes[row] = size
            for trait in traits:
                contents.traits[trait].append(row)
            if complaint:
                contents.complaints[row] = complaint
    return contents


def _results(
    source: DatasetSource | RecordsSource,
    pool: ThreadPoolExecutor,
    num_workers: int,
) -> Iterator[tuple[bytes, tuple[int, int], list[str], str] | str]:
    """Results of `_examine` in the order of rows."""
    ahead = deque()
    for load in source.loads():
        ahead.append(pool.submit(_examine, load))
        if len(ahead) > _AHEAD * num_workers:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def _examine(
    load: Callable[[], bytes],
) -> tuple[bytes, tuple[int, int], list[str], str] | str:
    """Digest, size, traits and libjpeg's complaint of an image; or why not."""
    try:
        encoded = load()
        height, width, traits = image_decoding.examine(encoded)
    except OSError as error:
        return f"cannot be read: {error}"
    except ValueError as error:
        return str(error)
    digest = hashlib.sha256(encoded).digest()[:DIGEST_BYTES]
    return digest, (height, width), traits, jpeg_damage.complaint(encoded)
