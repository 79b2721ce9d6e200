"""A tiny dataset in three splits, and options that train on it in seconds."""

import shutil
from pathlib import Path

import pytest
from toy_search import jpeg

from sare_tf import build_records, train
from sare_tf.dataset import manifest
from sare_tf.records.options import RecordOptions
from sare_tf.training import datasets
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import RunFolder

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


class RecordedRun:
    """Trains without a disturbance, and keeps the folder after each epoch.

    Args:
        root: an empty folder.
        **options: options of training, without the folder of the run.

    Attributes:
        finished: folder of the run.
        after: copies of it after each epoch, by the epoch's number.
        tuples: the tuples of each round, if they were mined.
    """

    def __init__(self, root: Path, **options):
        self.finished, self.after, self.tuples = root / "finished", {}, []
        finish_epoch = RunFolder.finish_epoch
        tuple_dataset = datasets.tuple_dataset

        def recorded(run_folder, measured, **saved):
            finish_epoch(run_folder, measured, **saved)
            epoch = measured["epoch"]
            self.after[epoch] = root / f"after-{epoch}"
            shutil.copytree(run_folder.path, self.after[epoch])

        def listening(source, tuples, **settings):
            self.tuples.append(tuples)
            return tuple_dataset(source, tuples, **settings)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(datasets, "tuple_dataset", listening)
            patch.setattr(RunFolder, "finish_epoch", recorded)
            train.run(TrainingOptions(checkpoints=self.finished, **options))
