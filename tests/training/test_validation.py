"""Validation: which queries, and which results count."""

import keras
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
        assert val.recall(*val.embed(pixels()))[1] == expected
