"""A tiny dataset in three splits, and options that train on it in seconds."""

from pathlib import Path

from toy_search import jpeg

from sare_tf import build_records
from sare_tf.dataset import manifest
from sare_tf.records.options import RecordOptions
from sare_tf.training.options import TrainingOptions

OPTIONS = {
    "image_height": 32,
    "image_width": 32,
    "backbone": "small",
    "num_clusters": 4,
    "inverse_bandwidth": 10.0,
    "optimizer": "adam",
    "tuples_per_batch": 3,
    "num_negatives": 2,
    # 12 queries: two rounds of two batches.
    "refresh_every_queries": 6,
    "epochs": 2,
}


def options(**changes) -> TrainingOptions:
    """Options for parts of training, which do not look at the folders."""
    folders = {"records": "records", "checkpoints": "checkpoints"}
    return TrainingOptions(**folders, **OPTIONS | changes)


def records(root: Path, *, places=6, database=2, queries=2) -> Path:
    """Builds records of places that differ in colour, in folders."""
    for number, split in enumerate(manifest.SPLITS):
        for place in range(places):
            for role, count in (("database", database), ("queries", queries)):
                folder = root / "photos" / split / role / f"p{place}"
                folder.mkdir(parents=True)
                for view in range(count):
                    encoded = jpeg(100 * number + place, 10 * len(role) + view)
                    (folder / f"{view}.jpg").write_bytes(encoded)
    return build_records.run(
        RecordOptions(
            dataset=root / "photos",
            records=root / "records",
            reader="place_folders",
        )
    )
