"""What is said of records, beside loops over `find_positives`."""

import numpy as np
import pandas as pd
import pytest

from sare_tf.dataset import manifest
from sare_tf.dataset.positives import (
    choose_rule,
    find_positives,
    make_relations,
)
from sare_tf.dataset.readers.collector import Reading
from sare_tf.dataset.sqlite_manifest import SqliteManifest
from sare_tf.records import shard_plan, unused_images
from sare_tf.records.sqlite_plan import KeptImages

ALONE = "query without a positive in the database"


def kept(rows, root, *, refused=(), relations=None):
    images = SqliteManifest()
    images.add_all(rows)
    plan = shard_plan.make(
        Reading(images, root, []),
        shard_mebibytes=1,
        preparation=shard_plan.Preparation(),
    )
    return KeptImages(plan.images, refused=refused, relations=relations)


def expected(rows, *, rule, radius_m, relations, refused):
    """The same by whole tables, in memory."""
    table = pd.DataFrame(rows)
    table = table[~table["image_id"].isin(refused)]
    found = []
    sizes = table.groupby(["split", "place_id"]).size()
    for (split, place), size in sizes.items():
        if place and size == 1:
            found.append((f"{split}/{place}", "place with one image"))
    for split in manifest.SPLITS:
        part = table[table["split"] == split]
        if part.empty:
            found.append((split, "split without an image"))
            continue
        queries, database = (
            part[part["role"] == role] for role in ("query", "database")
        )
        for role, some in (("query", queries), ("database", database)):
            if some.empty:
                found.append((split, f"split without a {role} image"))
        chosen = choose_rule(queries, database, relations=relations)
        if chosen == "place" and not manifest.has_places(part):
            found.append((split, "split where nothing says what matches"))
            continue
        positives = find_positives(
            queries,
            database,
            rule=rule,
            radius_m=radius_m,
            relations=relations,
        )
        alone = queries["image_id"][[not len(rows) for rows in positives]]
        found += [(image_id, ALONE) for image_id in alone]
    return found


def toy(seed, *, place, located, zones=("17T",), count=400, splits=3):
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        row = {
            "image_id": f"{number:03d}",
            "split": manifest.SPLITS[rng.integers(splits)],
            "role": ("database", "database", "query")[rng.integers(3)],
            "place_id": "",
            "utm_east_m": np.nan,
            "utm_north_m": np.nan,
            "utm_zone": "",
        }
        if place:
            row["place_id"] = f"p{rng.integers(200)}"
        if located:
            # Many are exactly 25 m apart: 25 and 0, 15 and 20.
            row["utm_east_m"] = 5.0 * int(rng.integers(120))
            row["utm_north_m"] = 5.0 * int(rng.integers(120))
            row["utm_zone"] = zones[rng.integers(len(zones))]
        rows.append(row)
    return rows


def check(rows, root, *, rule="auto", relations=None, refused=()):
    given = {"relations": relations, "refused": refused}
    images = kept(rows, root, **given)
    unused_images.check_rule(images, rule=rule)
    found = list(unused_images.find(images, rule=rule, radius_m=25.0))
    wanted = expected(rows, rule=rule, radius_m=25.0, **given)
    assert sorted(found) == sorted(wanted)
    # Splits in their order, and what lies together in records together.
    splits = [what for what, _ in found if what in manifest.SPLITS]
    assert splits == [what for what, _ in wanted if what in manifest.SPLITS]
    return found


@pytest.mark.parametrize("strip", [1, 7, 1 << 14])
@pytest.mark.parametrize(
    "zones", [("17T",), ("",), ("17T", "17S"), ("17T", "18T", "17G")]
)
def test_by_radius(tmp_path, monkeypatch, zones, strip):
    monkeypatch.setattr(unused_images, "_STRIP_IMAGES", strip)
    rows = toy(0, place=False, located=True, zones=zones)
    found = check(rows, tmp_path)
    assert sum(text == ALONE for _, text in found) > 10


@pytest.mark.parametrize("seed", range(3))
def test_by_place(tmp_path, seed):
    found = check(toy(seed, place=True, located=False), tmp_path)
    texts = {text for _, text in found}
    assert texts == {ALONE, "place with one image"}


def test_of_what_is_kept(tmp_path):
    rows = toy(0, place=True, located=True)
    refused = [row["image_id"] for row in rows[::2]]
    for rule in ("place", "radius"):
        before = check(rows, tmp_path, rule=rule)
        after = check(rows, tmp_path, rule=rule, refused=refused)
        assert before != after


def test_by_list(tmp_path):
    rows = toy(1, place=False, located=True, splits=2)
    rng = np.random.default_rng(1)
    ids = {
        role: [row["image_id"] for row in rows if row["role"] == role]
        for role in manifest.ROLES
    }
    # Of any split, so that some answers lie in another one; junk is none.
    pairs = {
        (str(rng.choice(ids["query"])), str(rng.choice(ids["database"])))
        for _ in range(150)
    }
    relations = make_relations(
        [
            (*pair, ("easy", "hard", "junk")[number % 3])
            for number, pair in enumerate(sorted(pairs))
        ],
        pd.DataFrame(rows),
    )
    found = check(rows, tmp_path, relations=relations)
    assert ("test", "split without an image") in found
    assert 10 < sum(text == ALONE for _, text in found) < len(ids["query"])


def test_a_split_without_queries_or_truth(tmp_path):
    rows = toy(2, place=False, located=True, splits=1)
    for row in rows:
        row["role"] = "database"
    assert check(rows, tmp_path)[0] == (
        *("train", "split without a query image"),
    )
    rows = toy(2, place=True, located=False, splits=1)
    rows[3]["place_id"] = ""
    assert check(rows, tmp_path)[-3] == (
        *("train", "split where nothing says what matches"),
    )


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("radius", "Expected coordinates .* Received: 400 images without"),
        ("place", "Expected a place_id .* Received: 400 images without"),
        ("list", "Expected a list of positives"),
        ("near", "Received: rule='near'"),
    ],
)
def test_a_rule_that_the_images_do_not_allow(tmp_path, rule, message):
    other = rule == "radius"
    images = kept(toy(0, place=other, located=not other, splits=1), tmp_path)
    with pytest.raises(ValueError, match=message):
        unused_images.check_rule(images, rule=rule)
