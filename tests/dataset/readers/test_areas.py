import itertools
import math

import numpy as np
import pytest

from sare_tf.dataset.readers import areas


def test_areas_are_linked_by_50_m():
    east = np.array([0.0, 50.0, 100.0, 150.5, 150.5])
    names = areas.find_areas(
        east, np.zeros(5), ["17T", "17T", "17T", "17T", "18T"]
    )
    assert names[0] == names[1] == names[2]
    assert len(set(names)) == 3


@pytest.mark.parametrize("pairs", [1, 50, 1 << 20])
def test_areas_equal_a_loop(monkeypatch, pairs):
    """However few pairs of images are looked at together."""
    monkeypatch.setattr(areas, "_LINKED_PAIRS", pairs)
    monkeypatch.setattr(areas, "_AREA_M", 1e9)
    rng = np.random.default_rng(0)
    points = rng.integers(0, 60, (200, 2)) * 10.0
    area = list(range(200))
    for one, other in itertools.combinations(range(200), 2):
        if math.dist(points[one], points[other]) <= 50:
            old, new = area[other], area[one]
            area = [new if number == old else number for number in area]
    # Numbers in the order of the first image of each.
    numbers = {old: new for new, old in enumerate(dict.fromkeys(area))}
    assert len(numbers) > 5
    assert areas.find_areas(*points.T, ["17T"] * 200) == [
        f"17T {numbers[old]} 0 0" for old in area
    ]


def test_a_long_street_is_cut():
    east = np.arange(0.0, 2000.0, 10.0)
    names = areas.find_areas(east, np.zeros(200), ["17T"] * 200)
    assert len(set(names)) == 4
    assert names[0] == names[49] != names[50]


def test_train_gives_way_to_its_neighbours():
    east = np.array([0.0, 60.0, 100.0, 151.0, 0.0])
    zones = ["17T"] * 4 + ["18T"]
    splits = ["train", "train", "val", "test", "test"]
    near = areas.too_near(east, np.zeros(5), zones, splits)
    # 60 m is 40 m from val; val is 51 m from test; other zones are far away.
    assert near.tolist() == [False, True, False, False, False]
