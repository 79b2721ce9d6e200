"""Runs over sampled places, several folders and interpolated weights."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import toy_towns
import toy_training
from absl import flags
from absl.testing import flagsaver
from finished_runs import assert_same_run, events

from sare_tf import export, train
from sare_tf.records.records import Records
from sare_tf.runtime import flagfiles
from sare_tf.training import interpolation, place_parts, run_folder
from sare_tf.training.options import ExportOptions, TrainingOptions
from sare_tf.training.run_folder import read_state
from sare_tf.training.training_data import TrainingData

GEM = {**toy_training.OPTIONS, "aggregation": "gem", "learning_rate": 0.003}
MIXED = {
    "loss": "place_multi_similarity",
    "sampler": "cliques,similar,regions",
    "shares": "2,1,1",
    "places_per_batch": 8,
    "images_per_place": 2,
    "descriptors_every": 2,
    "steps_per_epoch": 3,
}
GRID = {
    "loss": "place_cosface",
    "places_per_batch": 8,
    "images_per_place": 2,
    "class_size_m": 20,
    "class_heading_deg": 90,
    "class_images": 2,
    "class_groups": 2,
}


@pytest.fixture(scope="module")
def towns(tmp_path_factory):
    """Three folders of records."""
    return [
        toy_towns.records(
            tmp_path_factory.mktemp("towns") / name, number=number
        )
        for number, name in enumerate(("one", "two", "three"))
    ]


def of_flagfile(path, **given):
    lines = [f"--{name}={value}" for name, value in given.items()]
    path.write_text("\n".join(lines), encoding="utf-8")
    with flagsaver.flagsaver():
        flags.FLAGS(flagfiles.insert(["train", f"--flagfile={path}"]))
        return TrainingOptions.from_flags()


def options_of(towns, folder, **changes):
    given = {
        **GEM,
        "records": towns[0],
        "train_records": ",".join(map(str, towns)),
        "val_records": ",".join(map(str, towns[:2])),
        "checkpoints": folder / "run",
        **MIXED,
        **changes,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return of_flagfile(folder / "mine.flags", **given)


def fields_of(options):
    values = dict(vars(options))
    del values["checkpoints"]
    return values


@pytest.fixture(scope="module")
def mixed(towns, tmp_path_factory):
    """Two epochs of three folders, each with a sampler of its own."""
    folder = tmp_path_factory.mktemp("mixed")
    options = options_of(towns, folder)
    return options, toy_training.RecordedRun(folder, **fields_of(options))


def test_a_mixed_run_reports_its_parts(mixed):
    options, run = mixed
    _, *epochs = history = read_state(run.finished)[1]["history"]
    for entry in epochs:
        parts = entry["loss_by_part"]
        assert list(parts) == ["one", "two", "three"]
        assert sum(parts.values()) == pytest.approx(entry["loss"], rel=1e-5)
    for entry in history:
        by_folder = entry["recall_by_folder"]
        assert list(by_folder) == ["one", "two"]
        for k, recall in entry["recall_at"].items():
            mean = (by_folder["one"][k] + by_folder["two"][k]) / 2
            assert recall == pytest.approx(mean)
        assert entry["val_queries"] == 16
    shown = {tag: float(v) for _, tag, v in events(run.finished) if v.size == 1}
    for name, loss in epochs[-1]["loss_by_part"].items():
        assert shown[f"train/loss_{name}"] == pytest.approx(loss)
    assert (
        shown["val/two/recall_at_1"]
        == history[-1]["recall_by_folder"]["two"]["1"]
    )
    assert options.places_of_parts() == (4, 2, 2)


def test_a_stopped_mixed_run_ends_as_if_undisturbed(mixed, tmp_path):
    """Epoch 1 plans the batches of epoch 2, too."""
    options, run = mixed
    for epoch, later in ((1, [2, 2, 2]), (2, [])):
        folder = run.after[epoch] / f"epoch-000{epoch}"
        planned = np.load(folder / "remembered.npy")
        # The number of the epoch, then the images of a batch.
        assert planned.shape == (len(later), 17)
        assert planned[:, 0].tolist() == later
    stopped = shutil.copytree(run.after[1], tmp_path / "run")
    train.run(TrainingOptions(checkpoints=stopped, **fields_of(options)))
    assert_same_run(stopped, run.finished)


def test_each_part_of_a_batch_is_of_its_folder(towns, mixed):
    options, run = mixed
    data = TrainingData.of(Records(towns[0]), options)
    starts = [part.first_row for part in data.places.parts]
    assert starts == [0, 96, 192]
    plan = data.planned_places(epoch=1)
    for part, columns in zip(
        range(3), (slice(0, 8), slice(8, 12), slice(12, 16)), strict=True
    ):
        assert set(plan.images[:, columns].reshape(-1) // 96) == {part}
    for labels in plan.labels:
        assert len(set(labels)) == 8
    assert data.workload().epoch == (
        "3 steps of 8 places, 16 images, 8 of one, 4 of two, 4 of three; 192 "
        "images embedded before"
    )
    towns_of = plan.rows["image_id"].str.partition("/")[0].to_numpy()
    for images in plan.images[:, 12:]:
        assert len(set(towns_of[images])) == 1


def test_planned_batches_with_images_that_cannot_be_read(towns, mixed, caplog):
    """Those that were planned for epoch 2 before an image became bad."""
    options, run = mixed
    planned = np.load(run.after[1] / "epoch-0001/remembered.npy")
    data = TrainingData.of(Records(towns[0]), options)
    names = data.places.rows["image_id"].to_numpy()
    bad = names[planned[1, 1]]
    kept = ~(names[planned[:, 1:]] == bad).any(axis=1)
    assert 0 < kept.sum() < 3
    places = dataclasses.replace(data.places, bad=[bad])
    plan, later = places.plan_by_descriptors(None, None, 2, planned)
    np.testing.assert_array_equal(plan.images, planned[kept, 1:])
    assert len(later) == 0
    assert f"Left out: {3 - kept.sum()} batches" in caplog.text
    places = dataclasses.replace(data.places, bad=set(names))
    with pytest.raises(ValueError, match="3 batches planned for epoch 2, none"):
        places.plan_by_descriptors(None, None, 2, planned)


def test_folders_of_images_of_other_shapes_are_noted(towns, caplog):
    options = toy_training.options(
        loss="place_n_pairs",
        train_records=("a", "b"),
        places_per_batch=4,
    )
    folders = [Records(towns[0]), Records(towns[1])]
    place_parts.of_folders(folders, options)
    assert "different shapes" not in caplog.text
    folders[1].manifest["width"] = 48
    place_parts.of_folders(folders, options)
    assert "which all become 32 x 32: 32 x 32 in" in caplog.text
    assert ", 48 x 32 in" in caplog.text


def test_classes_train_with_cosface_one_group_each_epoch(towns, tmp_path):
    """Classes of CosPlace, and lateral and frontal ones of EigenPlaces."""
    options = options_of(
        towns,
        tmp_path,
        **GRID,
        sampler="cosplace,eigenplaces",
        train_records=f"{towns[0]},{towns[1]}",
        val_records=None,
        shares=None,
        steps_per_epoch=2,
        class_spacing=2,
    )
    data = TrainingData.of(Records(towns[0]), options)
    assert len(data.group_sizes) == 2 * 3
    run = toy_training.RecordedRun(tmp_path, **fields_of(options))
    stopped = run.after[1]
    directions = []
    for name in ("epoch-0000", "epoch-0001"):
        network = keras.models.load_model(stopped / name / "model.keras")
        directions.append(network.loss_layer.directions.numpy())
    moved = (directions[0] != directions[1]).any(axis=1)
    # Of the classes of the first group of each part, and of no other.
    ends = np.cumsum(data.group_sizes)
    for number, size in enumerate(data.group_sizes):
        own = slice(ends[number] - size, ends[number])
        assert moved[own].any() == (number % 2 == 0)
    plan = data.planned_places(epoch=2)
    group = data.places.parts[0].classes.group(1)
    assert set(plan.labels[:, :8].reshape(-1)) <= set(group)
    train.run(TrainingOptions(checkpoints=stopped, **fields_of(options)))
    assert_same_run(stopped, run.finished)
    entry = read_state(run.finished)[1]["history"][1]
    names = ["one", "two_lateral", "two_frontal"]
    assert list(entry["loss_by_part"]) == names


def test_one_image_of_a_class_is_enough_for_cosface(towns, tmp_path):
    """As CosPlace and EigenPlaces draw them; a loss over pairs needs two."""
    given = {
        **GRID,
        "images_per_place": 1,
        "sampler": "eigenplaces",
        "train_records": None,
        "val_records": None,
        "shares": None,
        "steps_per_epoch": 2,
        "epochs": 1,
    }
    options = options_of(towns, tmp_path, **given)
    plan = TrainingData.of(Records(towns[0]), options).planned_places(epoch=1)
    assert plan.images.shape == (2, 8)
    for labels in plan.labels:
        assert len(set(labels)) == 8
    train.run(options)
    _, entry = read_state(tmp_path / "run")[1]["history"]
    losses = entry["loss_by_part"]
    assert list(losses) == ["lateral", "frontal"]
    assert all(0 < loss < np.inf for loss in losses.values())
    for loss in ("place_sare_joint", "place_fast_ap"):
        with pytest.raises(ValueError, match=f"loss {loss} compares pairs of"):
            options_of(towns, tmp_path, **given | {"loss": loss})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"region_by": "condition", "places_per_batch": 9},
            "region_by='condition'",
        ),
        ({"sampler": "regions", "places_per_batch": 48}, "west .8 places."),
        (
            {"sampler": "cliques", "places_per_batch": 96},
            "attempts, with",
        ),
        (
            {"sampler": "cosplace", "places_per_batch": 24},
            "a group with 8 classes of 10 images",
        ),
    ],
)
def test_data_that_a_sampler_cannot_draw_from_is_refused(
    changes, message, towns, tmp_path
):
    """Before a folder is made."""
    options = options_of(towns, tmp_path, **{"shares": None, **changes})
    with pytest.raises(ValueError, match=message):
        train.run(options)
    assert not (tmp_path / "run").exists()


def test_folders_without_a_split_are_refused(towns, tmp_path):
    only = toy_towns.records(tmp_path / "only", number=5, splits=("train",))
    given = {"shares": None, "sampler": "random", "train_records": None}
    with pytest.raises(ValueError, match="a val split in each of --val_recor"):
        train.run(
            options_of(
                towns, tmp_path, **given, val_records=f"{towns[0]},{only}"
            )
        )
    with pytest.raises(ValueError, match="a val split, to choose between int"):
        train.run(
            options_of(
                [only],
                tmp_path,
                **given | {"val_records": None, "interpolation": "0.5"},
            )
        )
    only = toy_towns.records(tmp_path / "val", number=6, splits=("val",))
    given["train_records"] = f"{towns[0]},{only}"
    with pytest.raises(ValueError, match="in the split 'train'|a train split"):
        train.run(options_of(towns, tmp_path, **given))
    assert not (tmp_path / "run").exists()


def test_folders_have_short_names(tmp_path):
    names = place_parts.folder_names(
        [tmp_path / name / "records" for name in ("a", "b")]
    )
    assert names == ["a", "b"]
    assert place_parts.folder_names([tmp_path / "a"]) == ["a"]


def test_interpolated_weights_are_validated_and_written(towns, mixed, tmp_path):
    options, run = mixed
    finished = shutil.copytree(run.finished, tmp_path / "run")
    given = {**fields_of(options), "interpolation": (1.0, 0.0, 0.25)}
    train.run(TrainingOptions(checkpoints=finished, **given))
    assert_same_run(finished, run.finished)
    config, state = read_state(finished / "interpolated")
    table = config["interpolated"]["table"]
    assert [row["share"] for row in table] == [0.0, 0.25, 1.0]
    history = read_state(finished)[1]["history"]
    for row, entry in ((table[0], history[0]), (table[2], history[-1])):
        assert row["recall_by_folder"] == entry["recall_by_folder"]
    best = max(row["recall_at"]["5"] for row in table)
    (entry,) = state["history"]
    assert entry["recall_at"]["5"] == best
    share = config["interpolated"]["share"]
    first, last, made = (
        run_folder.load_embedder(path, epoch=epoch).get_weights()
        for path, epoch in (
            (finished, "epoch-0000"),
            (finished, "epoch-0002"),
            (finished / "interpolated", None),
        )
    )
    for a, b, c in zip(first, last, made, strict=True):
        np.testing.assert_allclose(c, (1 - share) * a + share * b, atol=1e-6)
    # Made once.
    written = (finished / "interpolated/config.json").stat().st_mtime_ns
    train.run(TrainingOptions(checkpoints=finished, **given))
    again = (finished / "interpolated/config.json").stat().st_mtime_ns
    assert again == written
    made = export.run(
        ExportOptions(
            checkpoints=finished / "interpolated", export=tmp_path / "export"
        )
    )
    card = json.loads((made / "sare_tf.json").read_text("utf-8"))
    assert card["checkpoint"] == "epoch-0000"
    assert card["validation"]["recall_at"] == entry["recall_at"]
    assert card["training"]["interpolated"]["share"] == share


def test_statistics_of_batch_normalisation_are_interpolated():
    first, last = (
        [
            np.array([1.0, 3.0], np.float32),
            np.array([7], np.int64),
        ],
        [np.array([2.0, 5.0], np.float32), np.array([9], np.int64)],
    )
    found = interpolation.between(first, last, 0.25)
    np.testing.assert_allclose(found[0], [1.25, 3.5])
    assert found[0].dtype == np.float32
    assert found[1].tolist() == [9]
