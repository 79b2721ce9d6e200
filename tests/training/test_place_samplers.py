"""Samplers of place batches, against loops from their definitions."""

import itertools
import math

import numpy as np
import pytest
import toy_manifest
import toy_training

from sare_tf.training import cliques, place_classes, place_samplers
from sare_tf.training.place_batches import PlaceBatchRule, number_places
from sare_tf.training.place_classes import Grid
from sare_tf.training.place_samplers import Places

RULE = PlaceBatchRule(places_per_batch=3, images_per_place=2)


def table(images):
    """Images (image_id, place_id, east, north, heading)."""
    return toy_manifest.make(
        {
            "image_id": image_id,
            "split": "train",
            "role": "database",
            "place_id": place,
            "utm_east_m": 500_000.0 + east,
            "utm_north_m": 4_000_000.0 + north,
            "utm_zone": "17T",
            "heading_deg": heading,
        }
        for image_id, place, east, north, heading in images
    )


def towns(places=7, images=3):
    """Two towns, 5 km apart, of places 60 m apart."""
    return table(
        (
            f"{town}/{place}-{image}.jpg",
            f"{town}{place}",
            5000 * (town == "b") + 60.0 * place,
            1.0 * image,
            0.0,
        )
        for town in "ab"
        for place in range(places)
        for image in range(images)
    )


def places_of(rows, **given):
    numbers = given.pop("numbers", None)
    if numbers is None:
        numbers = number_places(rows)
    return Places(rows, numbers, **{"rule": RULE, "seed": 0, **given})


def assert_batches(plan, places, *, apart=True):
    """Places of a batch are apart and each at most once in a pass."""
    seen = []
    names = places.rows["place_id"].to_numpy()
    for images, labels in zip(plan.images, plan.labels, strict=True):
        for place in range(places.rule.places_per_batch):
            own = images[2 * place : 2 * place + 2]
            assert len(set(own)) == 2
            assert len(set(names[own])) == 1
            assert len(set(labels[2 * place : 2 * place + 2])) == 1
            seen.append(names[own[0]])
    assert len(set(seen)) == len(seen)


def test_batches_of_regions_hold_one_region():
    rows = towns()
    regions = place_samplers.region_names(rows, by="folder")
    assert regions.tolist() == [name[0] for name in rows["image_id"]]
    places = places_of(rows, regions=regions)
    plan = place_samplers.regions(places)
    # 7 places of each town: two batches of 3, and one place left.
    assert plan.images.shape == (4, 6)
    assert plan.left_over == 2
    assert_batches(plan, places)
    found = [set(regions[images]) for images in plan.images]
    assert sorted(map(sorted, found)) == [["a"], ["a"], ["b"], ["b"]]
    orders = {
        tuple(
            regions[images[0]]
            for images in place_samplers.regions(
                places_of(rows, regions=regions, seed=seed)
            ).images
        )
        for seed in range(8)
    }
    assert len(orders) > 1


def test_a_region_that_fills_no_batch_is_named(caplog):
    rows = towns()
    rows = rows[~rows["image_id"].str.match("b/[2-6]")]
    regions = place_samplers.region_names(rows, by="folder")
    plan = place_samplers.regions(places_of(rows, regions=regions))
    assert set(regions[plan.images.reshape(-1)]) == {"a"}
    assert "left out: b (2 places)" in caplog.text
    rows = rows[~rows["image_id"].str.match("a/[2-6]")]
    rule = PlaceBatchRule(places_per_batch=3, images_per_place=2)
    with pytest.raises(ValueError, match=r"a \(2 places\), b \(2 places\)"):
        place_samplers.regions(
            places_of(
                rows,
                rule=rule,
                regions=place_samplers.region_names(rows, by="folder"),
            )
        )


def test_regions_that_are_none_are_refused():
    rows = towns()
    with pytest.raises(ValueError, match="1 regions such as '17T' of 42 im"):
        place_samplers.region_names(rows, by="utm_zone")
    with pytest.raises(ValueError, match="several regions.*sampler=random"):
        place_samplers.region_names(rows, by="condition")
    # Below the one folder that all have in common.
    rows["image_id"] = "train/" + rows["image_id"]
    names = place_samplers.region_names(rows, by="folder")
    assert set(names) == {"a", "b"}
    names[0] = "b"
    with pytest.raises(ValueError, match="'train/a/0-0.jpg' in a, b. Choose"):
        place_samplers.check_regions(rows, number_places(rows), names)


def line_of_descriptors(rows, seed=0):
    """Each place at an angle of its own."""
    numbers = number_places(rows)
    order = np.random.default_rng(seed).permutation(numbers.max() + 1)
    angle = 0.1 * order[numbers]
    return order, np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_batches_of_places_that_look_alike_follow_the_definition():
    """The first place is any; the next are the nearest that are left."""
    rows = towns(places=9)
    numbers = number_places(rows)
    order, descriptors = line_of_descriptors(rows)
    places = places_of(rows, descriptors=descriptors)
    plan = place_samplers.similar(places)
    assert plan.images.shape == (6, 6)
    assert_batches(plan, places)
    sets = [set(order[labels]) for labels in plan.labels]
    # The first batch that was drawn had every place to choose from.
    left = np.random.default_rng(0).permutation(18)
    nearest = sorted(range(18), key=lambda p: abs(order[p] - order[left[0]]))
    assert any(
        left[0] in labels
        and sum(abs(order[p] - order[left[0]]) for p in set(labels))
        == sum(abs(order[p] - order[left[0]]) for p in nearest[:3])
        for labels in plan.labels
    )
    apart = [np.mean([max(v) - min(v) for v in sets])]
    rule = places_of(rows)
    sets = [set(order[labels]) for labels in place_samplers.random(rule).labels]
    apart.append(np.mean([max(v) - min(v) for v in sets]))
    assert apart[0] < apart[1]
    assert numbers.max() == 17


def test_places_that_look_alike_and_are_near_do_not_meet():
    rows = table(
        (f"{place}-{image}", str(place), 20.0 * place, 0.0, 0.0)
        for place in range(8)
        for image in range(2)
    )
    descriptors = np.ones((16, 1))
    plan = place_samplers.similar(places_of(rows, descriptors=descriptors))
    for labels in plan.labels:
        for a, b in itertools.combinations(set(labels), 2):
            assert abs(a - b) > 1
    rule = PlaceBatchRule(places_per_batch=5, images_per_place=2)
    with pytest.raises(ValueError, match="8 places with 2 images, too near"):
        place_samplers.similar(places_of(rows, rule=rule))


@pytest.mark.parametrize("seed", range(3))
def test_cliques_follow_the_rule(seed):
    """All images of a clique are near each other, and no two cliques are."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 400, (160, 2))
    rows = table(
        (f"{n}", f"{int(e // 25)}-{int(m // 25)}", e, m, 0.0)
        for n, (e, m) in enumerate(xy)
    )
    numbers = number_places(rows)
    descriptors = rng.normal(size=(160, 4))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    places = places_of(
        rows, descriptors=descriptors, seed=seed, similar_places=30
    )
    plan = cliques.cliques(places)
    assert len(plan.images) > 10
    for images, labels in zip(plan.images, plan.labels, strict=True):
        assert labels.tolist() == [0, 0, 1, 1, 2, 2]
        for a, b in itertools.combinations(range(6), 2):
            apart = math.dist(xy[images[a]], xy[images[b]])
            assert (apart <= 25.0) == (labels[a] == labels[b])
            assert images[a] != images[b]
    again = cliques.cliques(places)
    np.testing.assert_array_equal(plan.images, again.images)
    assert numbers.max() > 100


def test_cliques_are_of_places_that_look_like_the_first():
    """Places of the farthest descriptor are never drawn with the first."""
    rows = towns(places=10)
    far = rows["image_id"].str.startswith("b").to_numpy()
    descriptors = np.where(far[:, None], [[0.0, 1.0]], [[1.0, 0.0]])
    plan = cliques.cliques(
        places_of(rows, descriptors=descriptors, similar_places=9)
    )
    assert len(plan.images) == 6
    for images in plan.images:
        assert len(set(far[images])) == 1


def test_regions_are_drawn_by_their_places_each_once():
    """A town gives two cliques at most, so that a batch needs the other."""
    rows = towns(places=2)
    names = place_samplers.region_names(rows, by="folder")
    plan = cliques.cliques(places_of(rows, regions=names))
    for images in plan.images:
        assert sorted(names[images]).count("a") in (2, 4)
        assert set(names[images]) == {"a", "b"}


def test_cliques_that_run_out(caplog):
    rows = towns(places=2)
    rule = PlaceBatchRule(places_per_batch=5, images_per_place=2)
    with pytest.raises(ValueError, match="1 attempts, with at most 4 cliques"):
        cliques.cliques(places_of(rows, rule=rule))
    rows["utm_east_m"] = np.nan
    with pytest.raises(ValueError, match="12 of 12 images without. Choose ano"):
        cliques.cliques(places_of(rows))


def class_of(east, north, heading, *, size, sector):
    """The class and, with N = 3 and L = 2, the group of CosPlace."""
    cell = (east // size, north // size, heading // sector)
    return cell, (cell[0] % 3, cell[1] % 3, cell[2] % 2)


def test_classes_of_cosplace_follow_the_definition(caplog):
    rng = np.random.default_rng(0)
    images = [
        (
            f"{n}",
            "",
            rng.uniform(0, 60),
            rng.uniform(0, 60),
            rng.uniform(0, 360),
        )
        for n in range(900)
    ]
    rows = table(images)
    grid = Grid(size_m=10.0, spacing=3, images=3, heading_deg=90.0)
    classes = place_classes.cosplace(rows, grid)
    by_class = {}
    for n, (_, _, east, north, heading) in enumerate(images):
        cell, group = class_of(
            500_000 + east, 4_000_000 + north, heading, size=10, sector=90
        )
        by_class.setdefault((group, cell), []).append(n)
    large = {key: own for key, own in by_class.items() if len(own) >= 3}
    left_out = len(by_class) - len(large)
    assert left_out
    assert (
        f"Left out: {left_out} classes with fewer images than 3" in caplog.text
    )
    groups = sorted({group for group, _ in large})
    assert len(groups) == len(classes.group_sizes) == 18
    for number, group in enumerate(groups):
        expected = sorted(own for (g, _), own in large.items() if g == group)
        found = [
            np.flatnonzero(classes.numbers == label).tolist()
            for label in classes.group(number)
        ]
        assert sorted(found) == expected
    assert (classes.numbers == -1).sum() == 900 - sum(map(len, large.values()))
    assert classes.group(18).tolist() == classes.group(0).tolist()
    few = place_classes.cosplace(rows, Grid(10.0, 3, 3, 90.0, groups=4))
    assert few.group_sizes == classes.group_sizes[:4]


def test_batches_are_of_one_group():
    rng = np.random.default_rng(1)
    rows = table(
        (f"{n}", "", *rng.uniform(0, 60, 2), rng.uniform(0, 180))
        for n in range(400)
    )
    classes = place_classes.cosplace(rows, Grid(10.0, 3, 2, 90.0))
    places = places_of(rows, numbers=classes.numbers, group=classes.group(5))
    plan = place_samplers.groups(places)
    assert set(plan.labels.reshape(-1)) <= set(classes.group(5))
    np.testing.assert_array_equal(classes.numbers[plan.images], plan.labels)
    xy = rows[["utm_east_m", "utm_north_m"]].to_numpy()
    for images, labels in zip(plan.images, plan.labels, strict=True):
        for a, b in itertools.combinations(range(6), 2):
            far = max(abs(xy[images[a]] - xy[images[b]])) > 20.0
            turned = abs(
                rows["heading_deg"].iloc[images[a]]
                - rows["heading_deg"].iloc[images[b]]
            )
            if labels[a] != labels[b]:
                assert far or turned > 90.0


def test_images_that_are_of_no_class_are_refused():
    rows = towns()
    with pytest.raises(ValueError, match="a group with 2 classes of 9 images"):
        place_classes.cosplace(rows, Grid(10.0, 3, 9))
    rows.loc[3, "heading_deg"] = np.nan
    with pytest.raises(ValueError, match="heading.*1 of 42.*'a/1-0.jpg'"):
        place_classes.cosplace(rows, Grid(10.0, 3, 2))
    rows.loc[4, "utm_east_m"] = np.nan
    with pytest.raises(ValueError, match="position.*1 of 42.*'a/1-1.jpg'"):
        place_classes.eigenplaces(rows, Grid(10.0, 3, 2), lateral=True)


def test_focal_points_by_hand():
    """A street that goes east, a little north: 3-4-5."""
    xy = np.array([[0.0, 0.0], [4.0, 3.0], [8.0, 6.0]])
    frontal = place_classes.focal_point(xy, lateral=False)
    np.testing.assert_allclose(frontal, [4 + 8, 3 + 6], atol=1e-9)
    lateral = place_classes.focal_point(xy, lateral=True)
    np.testing.assert_allclose(lateral, [4 - 6, 3 + 8], atol=1e-9)


@pytest.mark.parametrize("lateral", [True, False])
def test_views_of_eigenplaces_look_at_the_focal_point(lateral):
    """At each position of a street to the east, 12 images all around."""
    images = [
        (
            f"{block}/{step}-{turn}",
            "",
            60.0 * block + 2 * step,
            2.0,
            30.0 * turn,
        )
        for block in range(4)
        for step in range(5)
        for turn in range(12)
    ]
    rows = table(images)
    grid = Grid(size_m=15.0, spacing=2, images=5)
    classes = place_classes.eigenplaces(rows, grid, lateral=lateral)
    assert classes.group_sizes == (4,)
    for block in range(4):
        for step in range(5):
            own = [
                (classes.numbers[n], heading)
                for n, (_, _, east, _, heading) in enumerate(images)
                if east == 60.0 * block + 2 * step
            ]
            (used,) = [heading for number, heading in own if number >= 0]
            # The focal point: 10 m north or east of the middle, 4 m on.
            east, north = (4 - 2 * step, 10) if lateral else (14 - 2 * step, 0)
            towards = math.degrees(math.atan2(east, north))
            turn = abs((towards - used + 180) % 360 - 180)
            assert turn <= 15
            assert len({number for number, _ in own} - {-1}) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": ("similar",), "loss": "sare_joint"}, "no sampler with a"),
        (
            {"train_records": ("a",), "loss": "sare_joint"},
            "no train_records wi",
        ),
        ({"train_records": ("a", "a")}, "each folder of records once"),
        ({"sampler": ("random", "similar")}, "one for each.*1 folders"),
        ({"sampler": ("nearest",)}, "sampler='nearest'"),
        ({"shares": (1.0,), "train_records": ("a", "b")}, "a share above 0"),
        (
            {"shares": (2.0, 1.0), "train_records": ("a", "b")},
            r"\[10.67, 5.33\]. Change --shares",
        ),
        (
            {"shares": (15.0, 1.0), "train_records": ("a", "b")},
            r"at least 2 places.*Received: \[15, 1\]",
        ),
        (
            {"places_per_batch": 3, "sampler": ("eigenplaces",)},
            "an even number",
        ),
        (
            {"sampler": ("cliques",), "loss": "place_cosface"},
            "a loss over pairs with the sampler cliques",
        ),
        (
            {
                "sampler": ("eigenplaces",),
                "loss": "place_sare_joint",
                "memory_images": 8,
            },
            "memory_images=0 with batches of several parts",
        ),
        (
            {"sampler": ("cosplace",), "class_heading_deg": 40.0},
            "sectors.*class_heading_deg=40.0, heading_spacing=2",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        toy_training.options(**{"loss": "place_n_pairs", **changes})


def test_the_places_of_a_batch_are_divided_by_the_shares():
    """16 places in shares of 5, 2 and 1; the last two halves."""
    options = toy_training.options(
        loss="place_n_pairs",
        train_records=("a", "b", "c"),
        shares=(2.5, 1.0, 0.5),
        sampler=("random", "eigenplaces", "random"),
    )
    assert options.places_of_folders() == (10, 4, 2)
    assert options.places_of_parts() == (10, 2, 2, 2)
