"""The layout of the districts."""

import numpy as np
import pytest

from sare_tf.city import districts
from sare_tf.dataset import manifest


@pytest.mark.parametrize("num_places", [10, 300])
def test_places_keep_apart_and_districts_do_not_overlap(num_places):
    by_split = districts.place_positions(num_places, seed=3)
    assert set(by_split) == set(manifest.SPLITS)
    assert sum(len(places) for places in by_split.values()) == num_places
    everything = np.array([p[:2] for d in by_split.values() for p in d])
    east, north = everything.T
    apart = np.hypot(east[:, None] - east, north[:, None] - north)
    np.fill_diagonal(apart, np.inf)
    assert apart.min() >= 60
    bounds = sorted(
        (min(p[0] for p in d), max(p[0] for p in d)) for d in by_split.values()
    )
    for (_, end), (start, _) in zip(bounds[:-1], bounds[1:], strict=True):
        assert start - end > 1000


def test_cameras_look_across_the_street():
    for _, _, heading in districts.place_positions(40, seed=0)["train"]:
        assert heading in (0.0, 90.0, 180.0, 270.0)
