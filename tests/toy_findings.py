"""Hand-made manifests and what was found in them."""

import numpy as np
import toy_manifest

from sare_tf.checks.image_contents import ImageContents
from sare_tf.dataset import image_decoding

RADIUS = 25.0


def table(*rows, **common):
    """Rows are (image_id, split, role) with further columns as a dict."""
    return toy_manifest.make(
        {"image_id": name, "split": split, "role": role, **common, **more}
        for name, split, role, more in rows
    )


def at(east, north=4_500_000.0, zone="17T"):
    return {"utm_east_m": east, "utm_north_m": north, "utm_zone": zone}


def contents(rows, *, digests=None, sizes=None, problems=(), **traits):
    count = len(rows)
    numbers = np.arange(count) if digests is None else np.array(digests)
    return ImageContents(
        problems=dict(problems),
        complaints={},
        digests=np.repeat(numbers.astype(np.uint8)[:, None], 16, axis=1),
        sizes=np.array(sizes or [(480, 640)] * count, np.int32),
        traits={name: traits.get(name, []) for name in image_decoding.TRAITS},
    )


def by_name(findings):
    names = [finding.name for finding in findings]
    assert len(set(names)) == len(names)
    return {finding.name: finding for finding in findings}


def concerned(finding):
    return [image for image, _ in finding.images]
