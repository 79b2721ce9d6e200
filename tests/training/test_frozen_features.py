"""Training on stored features of frozen layers, against training on images."""

import logging
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy_towns
import toy_training
import toy_vit
from finished_runs import assert_same_run, comparable

from sare_tf import train
from sare_tf.model.registry import BACKBONES, TORCHVISION, Backbone
from sare_tf.records import tuple_building
from sare_tf.records.records import Records
from sare_tf.runtime import disk_space
from sare_tf.training import batches, frozen_features
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import RunFolder, load_embedder, read_state

CONVOLUTIONS = {
    **toy_training.OPTIONS,
    "aggregation": "gem",
    "train_from": "stage3",
    # One round of mining.
    "refresh_every_queries": 0,
}
# Of an image: the output of stage 2.
FEATURES = 8 * 8 * 32
TRANSFORMER = {
    **toy_training.OPTIONS,
    "image_height": 28,
    "image_width": 28,
    "backbone": "toy_vit",
    "aggregation": "salad",
    "num_clusters": 3,
    "train_from": "block1",
    "drop_path": 0.4,
    "loss": "place_sare_joint",
    "places_per_batch": 3,
    "images_per_place": 4,
    "memory_images": 12,
    "memory_after_steps": 1,
    "averaging_momentum": 0.5,
    "epochs": 1,
}


@pytest.fixture(autouse=True, scope="module")
def _toy_vit():
    recipe = Backbone(
        network="sare_tf.model.vit.build",
        arguments={"architecture": toy_vit.architecture(depth=3)},
        preprocessing=TORCHVISION,
        cut_layer="patches",
        train_from="block1",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "toy_vit", recipe)
        yield


def run(records, checkpoints, **options):
    return train.run(
        TrainingOptions(records=records, checkpoints=checkpoints, **options)
    )


@pytest.fixture(scope="module")
def recorded(toy_records, tmp_path_factory):
    """A run on features of convolutions, in the folder of the run."""
    return toy_training.RecordedRun(
        tmp_path_factory.mktemp("cached"),
        records=toy_records,
        cache_frozen=True,
        **CONVOLUTIONS,
    )


def assert_close_runs(one, other):
    """Rounding differs: features are computed in other batches."""
    for a, b in zip(comparable(one), comparable(other), strict=True):
        for name in {"loss", "violating"} & a.keys():
            assert a[name] == pytest.approx(b[name], rel=1e-3)
    epochs = [read_state(folder)[1]["last"] for folder in (one, other)]
    assert epochs[0] == epochs[1]
    for a, b in zip(
        *(
            load_embedder(folder, epoch=epochs[0]).get_weights()
            for folder in (one, other)
        ),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_tuples_are_mined_and_trained_on_as_without_a_cache(
    toy_records, recorded, tmp_path
):
    assert_close_runs(
        recorded.finished, run(toy_records, tmp_path / "run", **CONVOLUTIONS)
    )


def test_places_with_stochastic_depth_and_a_memory(toy_records, tmp_path):
    """Blocks of the trained layers are computed again, too."""
    plain, other = (
        run(toy_records, tmp_path / name, **TRANSFORMER, **changes)
        for name, changes in (
            ("plain", {}),
            ("other", {"cache_frozen": True, "recompute_blocks": True}),
        )
    )
    assert_close_runs(plain, other)


def test_a_stopped_run_ends_as_if_undisturbed(
    toy_records, recorded, monkeypatch, tmp_path
):
    """It neither reads images for the network nor computes features again."""
    checkpoints = shutil.copytree(recorded.after[1], tmp_path / "run")

    def predict(embedder, rows, dataset_of, *, batch_size, callbacks):
        del callbacks
        assert embedder.input_shape == (None, FEATURES)
        return embedder.predict(dataset_of(rows, batch_size), verbose=0)

    monkeypatch.setattr(frozen_features.strategies, "predict", predict)
    run(toy_records, checkpoints, cache_frozen=True, **CONVOLUTIONS)
    assert_same_run(checkpoints, recorded.finished)


def test_the_whole_network_is_saved_and_exported(recorded):
    embedder = load_embedder(recorded.finished)
    assert embedder.input_shape == (None, 32, 32, 3)
    first = load_embedder(recorded.finished, epoch="epoch-0000")
    for name, is_trained in (("stage2_conv", False), ("stage3_conv", True)):
        before, after = (
            model.get_layer("backbone").get_layer(name).get_weights()[0]
            for model in (first, embedder)
        )
        assert (before != after).any() == is_trained


def test_features_are_those_of_the_frozen_layers(toy_records, recorded):
    """By the layers themselves, one image after the other."""
    records = Records(toy_records)
    embedder = load_embedder(recorded.finished)
    backbone = embedder.get_layer("backbone")
    features = keras.Model(
        backbone.inputs, backbone.get_layer("stage2_relu").output
    )
    rows = records.manifest[records.manifest["split"].isin(("train", "val"))]
    stored = tf.data.TFRecordDataset(
        str(recorded.finished / "frozen" / "features-00000.tfrecord")
    )
    images = batches.decoded(records.encoded_dataset(rows), height=32, width=32)
    assert len(rows) == len(list(stored)) == 48
    for record, image in zip(stored.take(5), images, strict=False):
        expected = features(embedder.get_layer("preprocessing")(image[None]))
        np.testing.assert_allclose(
            np.frombuffer(record.numpy(), np.float32),
            keras.ops.convert_to_numpy(expected).reshape(-1),
            atol=1e-5,
        )


class Killed(BaseException):
    """Passes every `except Exception`."""


def test_features_resume_after_a_kill_and_are_made_again_where_damaged(
    toy_records, recorded, monkeypatch, tmp_path, caplog
):
    """Files of 20 images: three, killed while the second one is written."""
    monkeypatch.setattr(frozen_features, "_PART_BYTES", 20 * 4 * FEATURES)
    options = {
        **CONVOLUTIONS,
        "cache_frozen": True,
        "queries_per_epoch": 3,
        "epochs": 0,
    }
    folder = tmp_path / "run" / "frozen"
    with monkeypatch.context() as patch:
        write = frozen_features.FrozenFeatures._write

        def killed(self, name, *arguments):
            if name == "features-00001":
                (folder / f".{name}.rest").mkdir()
                raise Killed
            write(self, name, *arguments)

        patch.setattr(frozen_features.FrozenFeatures, "_write", killed)
        with pytest.raises(Killed):
            run(toy_records, tmp_path / "run", **options)
    first = (folder / "features-00000.tfrecord").stat().st_mtime_ns
    run(toy_records, tmp_path / "run", **options)
    names = [f"features-0000{number}.tfrecord" for number in range(3)]
    assert [path.name for path in sorted(folder.glob("*.tfrecord"))] == names
    assert (folder / names[0]).stat().st_mtime_ns == first
    assert not list(folder.glob(".*"))
    whole = b"".join((folder / name).read_bytes() for name in names)
    made = recorded.finished / "frozen" / "features-00000.tfrecord"
    np.testing.assert_allclose(
        *(_numbers(content) for content in (whole, made.read_bytes())),
        atol=1e-5,
    )
    damaged = bytearray((folder / names[2]).read_bytes())
    damaged[100] ^= 1
    (folder / names[2]).write_bytes(damaged)
    run(toy_records, tmp_path / "run", **options | {"epochs": 1})
    assert f"{names[2]} are made again" in caplog.text
    assert _numbers((folder / names[2]).read_bytes()).shape == (8, FEATURES)
    assert read_state(tmp_path / "run")[1]["last"] == "epoch-0001"


def _numbers(content):
    """The features in the bytes of TFRecords."""
    size = 4 * FEATURES + 16
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    return records[:, 12:-4].copy().view(np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_width": 64}, "image_width 32 there, 64 now"),
        ({"train_from": "stage2"}, "train_from stage3_conv there, stage2_conv"),
        ({"seed": 1}, "layers [0-9a-f]{16} there, [0-9a-f]{16} now. Choose"),
        ({"precision": "mixed_bfloat16"}, "dtype float32 there, bfloat16 now"),
        ({"train_from": "stage1"}, "trained from 'stage1_conv', its first lay"),
    ],
)
def test_features_of_other_things_are_refused(
    toy_records, recorded, tmp_path, changes, message
):
    folder = recorded.finished / "frozen"
    with pytest.raises(ValueError, match=message):
        run(
            toy_records,
            tmp_path / "run",
            cache_frozen=True,
            frozen_features=folder,
            **CONVOLUTIONS | changes,
        )


def test_samplers_embed_features_and_interpolation_whole_images(
    toy_records, tmp_path
):
    options = {
        **CONVOLUTIONS,
        "loss": "place_sare_joint",
        "places_per_batch": 3,
        "images_per_place": 4,
        "sampler": ("similar",),
        "interpolation": (0.5,),
        "epochs": 1,
    }
    folders = tmp_path / "images", tmp_path / "features"
    for folder, cached in zip(folders, (False, True), strict=True):
        run(toy_records, folder, cache_frozen=cached, **options)
    assert_close_runs(*folders)
    assert_close_runs(*(folder / "interpolated" for folder in folders))


@pytest.fixture(scope="module")
def towns(tmp_path_factory):
    """Three folders: two to train on, one of them and another to validate."""
    root = tmp_path_factory.mktemp("towns")
    one, two, three = (
        toy_towns.records(root / f"town{number}", number=number)
        for number in range(3)
    )
    return {
        "records": one,
        "train_records": (one, two),
        "val_records": (three, one),
    }


SEVERAL = {
    **CONVOLUTIONS,
    "loss": "place_sare_joint",
    "places_per_batch": 8,
    "images_per_place": 2,
    "sampler": ("cliques", "similar"),
    "interpolation": (0.5,),
}


def test_several_folders_have_features_each(
    towns, monkeypatch, tmp_path, caplog
):
    """96 images of train and 8 queries and 8 database images of val each."""
    settings = {
        name: tuple(map(str, towns[name]))
        for name in ("train_records", "val_records")
    }
    settings |= {"records": str(towns["records"]), **SEVERAL}
    with caplog.at_level(logging.INFO):
        cached = toy_training.RecordedRun(
            tmp_path / "cached", cache_frozen=True, **settings
        )
    assert "Computing features of 224 images once" in caplog.text
    plain = tmp_path / "plain"
    train.run(TrainingOptions(checkpoints=plain, **settings))
    assert_close_runs(cached.finished, plain)
    assert_close_runs(
        *(folder / "interpolated" for folder in (cached.finished, plain))
    )
    counts = {}
    for path in (cached.finished / "frozen").glob("*/*.tfrecord"):
        counts[path.parent.name] = len(_numbers(path.read_bytes()))
    assert sorted(counts.values()) == [16, 96, 112]
    # A run that was stopped computes none again, and ends as if undisturbed.
    monkeypatch.setattr(frozen_features.FrozenFeatures, "build", None)
    train.run(
        TrainingOptions(
            checkpoints=cached.after[1], cache_frozen=True, **settings
        )
    )
    assert_same_run(cached.after[1], cached.finished)
    monkeypatch.undo()
    # In the same folder, another one to train on has its own features.
    settings |= {"train_records": settings["val_records"], "val_records": ()}
    settings |= {"interpolation": (), "epochs": 0}
    shared = cached.finished / "frozen"
    train.run(
        TrainingOptions(
            checkpoints=tmp_path / "other",
            cache_frozen=True,
            frozen_features=str(shared),
            **settings,
        )
    )
    assert len(list(shared.glob("*/frozen.json"))) == 4


def test_features_of_one_folder_and_of_several_are_not_mixed(
    towns, toy_records, recorded, tmp_path
):
    options = {**SEVERAL, "cache_frozen": True}
    with pytest.raises(ValueError, match="which holds those of one. Choose an"):
        run(
            towns["records"],
            tmp_path / "run",
            val_records=tuple(map(str, towns["val_records"])),
            frozen_features=str(recorded.finished / "frozen"),
            **options | {"sampler": ("random",)},
        )
    several = tmp_path / "several"
    (several / "0123456789abcdef").mkdir(parents=True)
    with pytest.raises(ValueError, match="which holds other files"):
        run(
            toy_records,
            tmp_path / "other",
            cache_frozen=True,
            frozen_features=several,
            **CONVOLUTIONS,
        )


def test_a_disk_without_room_and_a_folder_of_others_are_refused(
    toy_records, tmp_path, monkeypatch
):
    options = {**CONVOLUTIONS, "cache_frozen": True, "epochs": 0}
    monkeypatch.setattr(RunFolder, "check_space", lambda *_: None)
    monkeypatch.setattr(disk_space, "free_bytes", lambda _: 10**5)
    # 48 images of 2,048 numbers, and 16 bytes each: 0.376 MiB.
    with pytest.raises(ValueError, match="Expected 0.4 MiB of free space for"):
        run(toy_records, tmp_path / "run", **options)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").touch()
    with pytest.raises(ValueError, match="which holds other files"):
        run(toy_records, tmp_path / "b", frozen_features=other, **options)


def test_an_image_that_cannot_be_read_is_left_out(toy_records, tmp_path):
    """Until a run that shares the folder can read it: it is made again."""
    root = tmp_path / "data"
    shutil.copytree(toy_records, root)
    row = Records(root).rows("train", "database").iloc[3]
    path = root / row["shard"]
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[row["byte_offset"] + 40] ^= 1
    path.write_bytes(damaged)
    options = {**CONVOLUTIONS, "cache_frozen": True, "epochs": 0}
    run(root, tmp_path / "run", **options)
    folder = tmp_path / "run" / "frozen"
    content = (folder / "features-00000.tfrecord").read_bytes()
    empty = ~_numbers(content).any(axis=1)
    assert empty.sum() == 1
    path.write_bytes(whole)
    options |= {"aggregation": "mac", "learning_rate": 0.1}
    run(root, tmp_path / "other", frozen_features=folder, **options)
    assert not (tmp_path / "other" / "frozen").exists()
    content = (folder / "features-00000.tfrecord").read_bytes()
    assert _numbers(content).any(axis=1).all()


def test_stored_tuples_are_read_as_features(toy_records, toy_run, tmp_path):
    tuples = tuple_building.build(
        records=toy_records,
        tuple_list=toy_run.after[1] / "epoch-0001" / "tuples.parquet",
        out=tmp_path / "tuples",
    )
    options = {
        **CONVOLUTIONS,
        "tuples": str(tuples),
        "queries_per_epoch": 3,
        "epochs": 1,
    }
    assert_close_runs(
        run(toy_records, tmp_path / "plain", **options),
        run(toy_records, tmp_path / "cached", cache_frozen=True, **options),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": ("crop",)}, r"Leave out --augment, or --cache_frozen"),
        ({"strategy": "multi_worker"}, "cache_frozen on one machine"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        toy_training.options(cache_frozen=True, **changes)
