"""Validation: which queries, and which results count."""

import keras
import numpy as np
import pytest
import toy_training
from toy_search import jpeg

from sare_tf import build_records
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.training.validation import Validation


def pixels():
    """An embedder without weights."""
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.UnitNormalization(),
        ]
    )


def test_validation_on_a_part_of_the_queries(toy_records):
    opened = Records(toy_records)

    def queries(**changes):
        val = Validation(opened, toy_training.options(**changes))
        return val.queries["image_id"].tolist()

    everything = opened.rows("val", "query")["image_id"].tolist()
    assert queries(val_queries=0) == queries(val_queries=12) == everything
    five = queries(val_queries=5)
    assert len(set(five)) == 5
    assert five == sorted(five) == queries(val_queries=5)
    assert five != queries(val_queries=5, seed=1)


def test_validation_drops_results_of_the_same_time(tmp_path):
    """Each query is a database image as well: alone of its time, or not.

    Spot 0 has an image of another time, spot 1 has none.
    """
    for role, images in {
        "queries": [(0, 2014), (1, 2014)],
        "database": [(0, 2014), (0, 2009), (1, 2014), (2, 2009)],
    }.items():
        for split in ("train", "val"):
            for spot, year in images:
                name = f"@{1000 * spot}@0@@@@@@@@@@@{year}@@.jpg"
                path = tmp_path / "city" / "images" / split / role / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg(spot, 0))
    records = Records(
        build_records.run(
            RecordOptions(
                dataset=tmp_path / "city", records=tmp_path / "records"
            )
        )
    )
    for rule, expected in (("openibl", 1.0), ("netvlad", 0.5)):
        val = Validation(records, toy_training.options(train_positives=rule))
        recall, _ = val.measure(*val.embed(pixels()))
        assert recall[1] == expected


def test_the_mean_reciprocal_rank_by_hand(toy_records):
    """Descriptors on a circle, of place p in p; its queries in p + 0.6.

    Nearest are the two images of place p + 1, then those of p: rank 3. Behind
    the last place there is none: rank 1.
    """
    val = Validation(Records(toy_records), toy_training.options())

    def on_circle(rows, ahead):
        place = rows["place_id"].str.extract(r"p(\d)$")[0].astype(int)
        angle = (place.to_numpy() + ahead) / 10
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)

    recall, rank = val.measure(
        on_circle(val.queries, 0.6), on_circle(val.database, 0.0)
    )
    assert recall == {1: 2 / 12, 5: 1.0, 10: 1.0}
    assert rank == pytest.approx((2 + 10 / 3) / 12)


def test_a_query_without_a_positive_has_no_rank(toy_records):
    """The database images of one place are lost: 2 of 12 queries."""
    records = Records(toy_records)
    lost = records.rows("val", "database")["image_id"].iloc[:2].tolist()
    val = Validation(records, toy_training.options(), bad=lost)
    same = np.tile([1.0, 0.0], (12, 1))
    _, rank = val.measure(same, same[:10])
    # Of ten equal images two of each other place are right.
    assert rank == pytest.approx(
        2 * sum(1 / rank for rank in (1, 3, 5, 7, 9)) / 12
    )
