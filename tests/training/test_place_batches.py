"""Place batches: which images show a place, which places meet, what is read."""

import io
import itertools

import keras
import numpy as np
import pytest
import toy_manifest
from PIL import Image

import sare_tf
from sare_tf.records.records import Records
from sare_tf.training import datasets, place_batches
from sare_tf.training.batches import AugmentationDraws
from sare_tf.training.place_batches import PlaceBatchRule

# 7 m: the side of the cells.
RADIUS_M = 7 * np.sqrt(2)


def table(*, place_ids=None, east=None, north=None, headings=None):
    columns = {
        "place_id": place_ids,
        "utm_east_m": east,
        "utm_north_m": north,
        "heading_deg": headings,
    }
    columns = {name: given for name, given in columns.items() if given}
    return toy_manifest.make(
        {
            "image_id": str(number),
            "split": "train",
            "role": "database",
            **dict(zip(columns, values, strict=True)),
        }
        for number, values in enumerate(zip(*columns.values(), strict=True))
    )


def plan(rows, *, seed=0, **rule):
    return place_batches.plan_batches(
        rows, rule=PlaceBatchRule(**rule), seed=seed
    )


def groups(rows, **options):
    numbers = place_batches.number_places(rows, **options)
    assert set(numbers) == set(range(numbers.max() + 1))
    found = {}
    for image, number in enumerate(numbers):
        found.setdefault(number, []).append(image)
    return sorted(found.values())


def test_places_by_place_id_whatever_the_coordinates():
    rows = table(place_ids=list("babc"), east=[0.0] * 4, north=[0.0] * 4)
    assert groups(rows) == [[0, 2], [1], [3]]


def test_places_by_cell():
    rows = table(
        east=[0.0, 6.9, 7.1, 6.9, -0.1], north=[0.0, 6.9, 0.0, 7.1, 6.9]
    )
    found = groups(rows, radius_m=RADIUS_M)
    assert found == [[0, 1], [2], [3], [4]]


def test_a_group_that_stands_alone_is_one_place_across_borders():
    # Borders of cells at 0 and 7; of sectors at 0 and 30.
    rows = table(
        east=[-1.0, 1.0, 0.0, 20.0, 24.0, 28.0],
        north=[-1.0, 1.0, 7.5, 0.0, 0.0, 0.0],
        headings=[350.0, 10.0, 5.0, 0.0, 31.0, 0.0],
    )
    found = groups(rows, radius_m=RADIUS_M)
    assert found == [[0, 1, 2], [3], [4], [5]]
    rows["heading_deg"] = np.nan
    # Cells would begin at 21 and at 28.
    assert groups(rows, radius_m=RADIUS_M) == [[0, 1, 2], [3, 4, 5]]


def test_images_of_a_cell_are_within_the_radius():
    rng = np.random.default_rng(0)
    x = rng.uniform(500_000, 500_020, (900, 2))
    rows = table(east=list(x[:, 0]), north=list(x[:, 1]))
    found = groups(rows, radius_m=12.0)
    apart = [
        np.linalg.norm(x[a] - x[b])
        for some in found
        for a, b in itertools.combinations(some, 2)
    ]
    assert 10.0 < max(apart) <= 12.0


def test_other_headings_are_other_places():
    headings = [0.0, 29.0, 31.0, 359.0, -1.0, 390.0]
    rows = table(east=[1.0] * 6, north=[1.0] * 6, headings=headings)
    # Sectors of 30 degrees: 390 is 30, and -1 is 359.
    assert groups(rows) == [[0, 1], [2, 5], [3, 4]]
    headings[0] = np.nan
    rows = table(east=[1.0] * 6, north=[1.0] * 6, headings=headings)
    assert groups(rows) == [[0, 1, 2, 3, 4, 5]]


def test_images_that_tell_no_place_are_refused():
    rows = table(place_ids=["a", "", "a"])
    with pytest.raises(ValueError, match="3 images, 1 without place_id"):
        place_batches.number_places(rows)
    with pytest.raises(ValueError, match="Received: radius_m=0"):
        place_batches.number_places(table(place_ids=["a"]), radius_m=0)


def town(seed=0, images=400, extent=150.0):
    """Images at random, some of them at exactly the same spot."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, extent, (images, 2)).round(1)
    x[: images // 4] = x[images // 4 : images // 2]
    headings = rng.uniform(0, 360, images)
    rows = table(east=list(x[:, 0]), north=list(x[:, 1]))
    rows["heading_deg"] = headings
    return rows, x, headings


def test_no_image_meets_one_that_may_show_its_place():
    rows, x, headings = town()
    planned = plan(rows, places_per_batch=4, images_per_place=2, radius_m=30.0)
    assert len(planned.images) > 3
    for batch, labels in zip(planned.images, planned.labels, strict=True):
        for a, b in itertools.combinations(range(len(batch)), 2):
            apart = np.linalg.norm(x[batch[a]] - x[batch[b]])
            if labels[a] == labels[b]:
                assert apart <= 30.0
                turned = abs(headings[batch[a]] - headings[batch[b]])
                assert min(turned, 360 - turned) <= 30.0
                assert batch[a] != batch[b]
            else:
                assert apart > 25.0


@pytest.mark.parametrize("located", [False, True])
def test_an_epoch_has_each_place_at_most_once(located):
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 7, 40)
    ids = [f"p{place}" for place, size in enumerate(sizes) for _ in range(size)]
    east = [100.0 * int(name[1:]) for name in ids] if located else None
    rows = table(place_ids=ids, east=east, north=east)
    planned = plan(rows, places_per_batch=3, images_per_place=4)
    large = (sizes >= 4).sum()
    assert planned.images.shape == (large // 3, 12)
    assert planned.small_places == 40 - large
    assert planned.left_over == large % 3
    for batch, labels in zip(planned.images, planned.labels, strict=True):
        assert (labels.reshape(3, 4) == labels.reshape(3, 4)[:, :1]).all()
        names = [ids[image] for image in batch]
        by_label = dict(zip(labels, names, strict=True))
        assert [by_label[label] for label in labels] == names
        assert len(set(names)) == 3
    assert len(set(planned.images.reshape(-1))) == planned.images.size
    assert len(set(planned.labels.reshape(-1))) == large // 3 * 3


def test_plans_follow_the_seed():
    rows, _, _ = town()
    options = {"places_per_batch": 4, "images_per_place": 2, "radius_m": 30.0}
    one, again, other = (plan(rows, seed=seed, **options) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.images, again.images)
    np.testing.assert_array_equal(one.labels, again.labels)
    assert one.images[0].tolist() != other.images[0].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"places_per_batch": 1, "images_per_place": 2},
            "places_per_batch=1, images_per_place=2",
        ),
        (
            {"places_per_batch": 2, "images_per_place": 0},
            "places_per_batch=2, images_per_place=0",
        ),
        (
            {"places_per_batch": 3, "images_per_place": 2},
            "at least 3 places .* 2 of 3 places with 2 images",
        ),
        (
            {"places_per_batch": 2, "images_per_place": 2},
            "more than 25.0 m apart. Received: 2 of 3 places",
        ),
    ],
)
def test_places_that_make_no_batch_are_refused(options, message):
    rows = table(
        place_ids=list("aabbc"),
        east=[0.0, 0.0, 25.0, 25.0, 90.0],
        north=[0.0] * 5,
    )
    with pytest.raises(ValueError, match=message):
        plan(rows, **options)


def test_the_separation_is_inclusive():
    rows = table(
        place_ids=list("aabb"), east=[0.0, 0.0, 25.1, 25.1], north=[0.0] * 4
    )
    options = {"places_per_batch": 2, "images_per_place": 2}
    assert len(plan(rows, **options).images) == 1
    with pytest.raises(ValueError, match="more than 25.1 m apart"):
        plan(rows, separation_m=25.1, **options)


@pytest.fixture
def opened(toy_records):
    """6 places with 4 images each in the train split, by folder."""
    return Records(toy_records)


def train_rows(opened):
    return opened.manifest[opened.manifest["split"] == "train"]


def test_batches_hold_the_images_named(opened):
    rows = train_rows(opened)
    rule = PlaceBatchRule(places_per_batch=2, images_per_place=3)
    dataset = datasets.place_dataset(
        opened, rows, height=32, width=32, rule=rule, seed=5
    )
    planned = place_batches.plan_batches(rows, rule=rule, seed=5)
    batches = list(dataset.as_numpy_iterator())
    assert len(batches) == int(dataset.cardinality()) == 3
    for (images, labels), positions, expected in zip(
        batches, planned.images, planned.labels, strict=True
    ):
        assert images.dtype == np.uint8
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, expected)
        encoded = opened.read_images(rows.iloc[positions])
        for image, data in zip(images, encoded, strict=True):
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            np.testing.assert_array_equal(image, pixels)


def test_draws_are_seeded_and_may_be_those_of_a_place(opened):
    def epoch(seed, *, same_in_group=False):
        dataset = datasets.place_dataset(
            opened,
            train_rows(opened),
            height=32,
            width=32,
            rule=PlaceBatchRule(places_per_batch=2, images_per_place=3),
            seed=seed,
            draws=AugmentationDraws(4, same_in_group, seed),
        )
        return np.stack([x["draws"] for x, _ in dataset.as_numpy_iterator()])

    each = epoch(1)
    assert each.shape[1:] == (6, 4)
    np.testing.assert_array_equal(each, epoch(1))
    assert (each != epoch(2)).all()
    assert len(np.unique(each)) == each.size
    alike = epoch(1, same_in_group=True).reshape(-1, 2, 3, 4)
    np.testing.assert_array_equal(alike, alike[:, :, :1].repeat(3, 2))
    assert len(np.unique(alike)) == alike.size / 3


def test_an_embedder_learns_from_place_batches(opened):
    keras.utils.set_random_seed(0)
    embedder = sare_tf.build_embedder(
        backbone="small", aggregation="gem", image_size=(32, 32)
    )
    embedder.compile(
        keras.optimizers.Adam(0.003),
        loss=sare_tf.PlaceSARELoss(inverse_bandwidth=10.0),
    )

    def epoch(seed):
        return sare_tf.place_dataset(
            opened,
            train_rows(opened),
            height=32,
            width=32,
            rule=sare_tf.PlaceBatchRule(places_per_batch=6),
            seed=seed,
        )

    before = embedder.evaluate(epoch(0), verbose=0)
    for seed in range(1, 9):
        embedder.fit(epoch(seed), shuffle=False, verbose=0)
    assert embedder.evaluate(epoch(0), verbose=0) < before / 2
