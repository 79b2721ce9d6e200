"""The exported graph gives the descriptors of the network that was trained."""

import dataclasses
import functools
import hashlib
import io
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy_damage
import toy_images
import toy_training
from absl import flags
from absl.testing import flagsaver
from PIL import Image, ImageOps
from tensorflow.core.protobuf import saved_model_pb2

from sare_tf import export, model, serving
from sare_tf.dataset import image_decoding
from sare_tf.model.exported_graph import ExportedGraph
from sare_tf.records.records import Records
from sare_tf.serving import warmup_requests
from sare_tf.training import export_folder, whitening_fit
from sare_tf.training.options import ExportOptions
from sare_tf.training.place_network import PlaceNetwork
from sare_tf.training.run_folder import load_embedder, read_state

FLAGS = flags.FLAGS
WHITENED = 5


@pytest.fixture(scope="module")
def root(toy_records, toy_run, tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    (root / "records").symlink_to(toy_records)
    (root / "checkpoints").symlink_to(toy_run.finished)
    export.run(
        ExportOptions(
            checkpoints=root / "checkpoints",
            export=root / "export",
            records=root / "records",
            model_licence="CC-BY-4.0",
        )
    )
    FLAGS.mark_as_parsed()
    with flagsaver.as_parsed(
        checkpoints=str(root / "checkpoints"),
        export=str(root / "whitened"),
        records=str(root / "records"),
        whitening_dimension=str(WHITENED),
        whitening_samples="100",
        batch_size="5",
    ):
        export.main(["export"])
    return root


def photographs():
    """Of several sizes and formats; the last one held sideways."""
    rng = np.random.default_rng(0)
    encoded = []
    sideways = Image.Exif()
    sideways[0x0112] = 6
    for kind, shape, exif in (
        ("JPEG", (32, 32, 3), b""),
        ("JPEG", (75, 100, 3), b""),
        ("PNG", (20, 31, 3), b""),
        ("JPEG", (40, 40), b""),
        ("JPEG", (40, 56, 3), sideways),
    ):
        low = rng.integers(0, 256, (shape[0] // 4 + 1, shape[1] // 4 + 1))
        pixels = low.repeat(4, 0).repeat(4, 1)[: shape[0], : shape[1]]
        if len(shape) == 3:
            pixels = np.stack([pixels, pixels // 2, 255 - pixels], -1)
        buffer = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, kind, exif=exif)
        encoded.append(buffer.getvalue())
    return encoded


@functools.cache
def load(path):
    """An export that no test changes."""
    return serving.load(path)


@functools.cache
def embedder(root):
    """As it was trained."""
    _, state = read_state(root / "checkpoints")
    path = root / "checkpoints" / state["best"] / "model.keras"
    return keras.models.load_model(path).get_layer("embedder")


def expected(root, encoded):
    """By the Keras model, on images decoded one by one."""
    batch = np.stack(
        [image_decoding.load(one, height=32, width=32) for one in encoded]
    )
    return embedder(root).predict(batch, verbose=0)


def unit(rows):
    return rows / np.sqrt(np.sum(rows**2, axis=1, keepdims=True) + 1e-12)


def whitened(root, descriptors, dimension):
    """By the singular values of the train database's descriptors."""
    records = Records(root / "records")
    rows = records.rows("train", "database")
    fitted_to = np.float64(expected(root, records.read_images(rows)))
    mean = fitted_to.mean(axis=0)
    _, singular, directions = np.linalg.svd(fitted_to - mean)
    variances = singular[:dimension] ** 2 / (len(fitted_to) - 1)
    projection = directions[:dimension].T / np.sqrt(variances + 1e-9)
    largest = np.abs(projection).argmax(axis=0)
    projection *= np.sign(projection[largest, range(dimension)])
    return unit((np.float64(descriptors) - mean) @ projection)


def damaged():
    """None of them can be decoded."""
    jpeg, png = photographs()[1:3]
    return [b"", b"text", jpeg[: len(jpeg) // 2], jpeg[:-40], png[:-40]]


def test_descriptors_equal_those_of_keras(root):
    servable = load(root / "export")
    encoded = photographs()
    found, valid = servable(encoded)
    assert found.shape == (5, servable.dimension) == (5, 4 * 96)
    assert valid.tolist() == 5 * [True]
    np.testing.assert_allclose(found, expected(root, encoded), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_photograph_held_sideways_is_turned(root):
    sideways = photographs()[-1]
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(sideways)))
    assert upright.size == (40, 56)
    pixels = image_decoding.resize(np.asarray(upright), height=32, width=32)
    found, _ = load(root / "export")([sideways])
    np.testing.assert_allclose(found, embedder(root)(pixels[None]), atol=1e-5)


@pytest.mark.parametrize("name", ["export", "whitened"])
def test_descriptors_do_not_depend_on_the_batch(root, name):
    servable = load(root / name)
    encoded = photographs()
    alone = np.concatenate([servable([one])[0] for one in encoded])
    np.testing.assert_allclose(servable(encoded)[0], alone, atol=2e-6)


@pytest.mark.parametrize("name", ["export", "whitened"])
def test_damaged_images_do_not_fail_the_others(root, name):
    servable = load(root / name)
    good, bad = photographs(), damaged()
    found, valid = servable([*bad[:3], good[0], *bad[3:], *good[1:]])
    assert valid.tolist() == [*3 * [0], 1, 0, 0, *4 * [1]]
    np.testing.assert_allclose(found[valid], servable(good)[0], atol=2e-6)
    np.testing.assert_array_equal(found[~valid], 0)
    found, valid = servable(bad)
    assert not valid.any()
    np.testing.assert_array_equal(found, np.zeros((5, servable.dimension)))


def test_images_beyond_the_limits_are_not_decoded(root):
    """Of pixels, scans and compressed texts: the builder's and the page's."""
    servable, good = load(root / "export"), photographs()[:2]
    names = ("many_scans", "large_jpeg", "large_png", "many_texts")
    bad = [toy_images.BAD[name][0] for name in names]
    # Decoding it takes 14 s.
    bad.append(
        toy_images.jpeg_that_says(
            8192, 8192, encoded=toy_images.with_scans(2000)
        )
    )
    found, valid = servable([good[0], *bad, good[1]])
    assert valid.tolist() == [1, *5 * [0], 1]
    np.testing.assert_allclose(found[[0, -1]], servable(good)[0], atol=2e-6)


@pytest.mark.parametrize("name", ["export", "whitened"])
def test_no_images(root, name):
    servable = load(root / name)
    found, valid = servable([])
    assert found.shape == (0, servable.dimension)
    assert valid.shape == (0,)
    signature = servable._model.signatures["embed_tensor"]
    found = signature(images=tf.zeros((0, 40, 50, 3)))["descriptor"]
    assert found.shape == (0, servable.dimension)


# What TF Serving does: the version 1 loader, nothing of ours, no Keras; and
# the command that users look at a SavedModel with.
SERVE = """
import os
import sys
sys.modules["keras"] = sys.modules["sare_tf"] = None  # cannot be imported
import numpy as np
import tensorflow as tf
from tensorflow.python.tools import saved_model_cli
root, source = sys.argv[1:]
encoded = np.load(source, allow_pickle=True)["encoded"]
np.save("one.npy", encoded[:1].astype(bytes))
for name in ("export", "whitened"):
    folder = f"{root}/{name}/1"
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], folder)
        signature = meta.signature_def["serving_default"]
        outputs = {k: v.name for k, v in signature.outputs.items()}
        feed = signature.inputs["image_bytes"].name
        found = session.run(outputs, {feed: encoded})
        none = session.run(outputs, {feed: encoded[:0]})
    os.mkdir(name)
    np.savez(
        f"{name}/outputs.npz",
        **found, none=none["descriptor"], none_valid=none["valid"],
    )
    sys.argv = ["saved_model_cli", "run", "--dir", folder, "--tag_set", "serve"]
    sys.argv += ["--signature_def", "serving_default", "--outdir", name]
    sys.argv += ["--inputs", "image_bytes=one.npy"]
    try:
        saved_model_cli.main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


@pytest.fixture(scope="module")
def served(root, tmp_path_factory):
    """What a process without Keras makes of photographs and damaged images."""
    folder = tmp_path_factory.mktemp("served")
    source = folder / "images.npz"
    np.savez(source, encoded=np.array([*photographs(), *damaged()], object))
    subprocess.run(
        [sys.executable, "-c", SERVE, str(root), str(source)],
        check=True,
        cwd=folder,
    )
    return folder


@pytest.mark.own_process
@pytest.mark.parametrize("name", ["export", "whitened"])
def test_a_process_without_keras_gives_the_same(root, served, name):
    outputs = np.load(served / name / "outputs.npz")
    descriptors = expected(root, photographs())
    if name == "whitened":
        descriptors = whitened(root, descriptors, WHITENED)
    np.testing.assert_allclose(
        outputs["descriptor"][:5], descriptors, atol=1e-5
    )
    np.testing.assert_array_equal(outputs["descriptor"][5:], 0)
    assert outputs["valid"].tolist() == [*5 * [True], *5 * [False]]
    assert outputs["none"].shape == (0, descriptors.shape[1])
    assert outputs["none_valid"].shape == (0,)
    by_command = np.load(served / name / "descriptor.npy")
    np.testing.assert_allclose(by_command, descriptors[:1], atol=1e-5)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_server_gives_the_same(root, protocol):
    import toy_server

    encoded = photographs()
    with toy_server.serve(root / "whitened" / "1") as toy:
        remote = serving.load(getattr(toy, protocol))
        found, valid = remote([*encoded, *damaged()])
    assert remote.fingerprint == load(root / "whitened").fingerprint
    assert valid.tolist() == [*5 * [True], *5 * [False]]
    descriptors = whitened(root, expected(root, encoded), WHITENED)
    np.testing.assert_allclose(found[:5], descriptors, atol=1e-5)
    np.testing.assert_array_equal(found[5:], 0)


def test_whitening_is_the_formula_on_what_keras_gives(root):
    encoded = photographs()
    found, _ = load(root / "whitened")(encoded)
    assert found.shape == (5, WHITENED)
    np.testing.assert_allclose(
        found, whitened(root, expected(root, encoded), WHITENED), atol=1e-5
    )


@pytest.fixture(scope="module")
def fit(root):
    """Fits whitening; descriptors of the photographs, and the card's entry."""
    keras_model = embedder(root)

    def fit(dimension, *, samples=10_000, seed=0):
        graph = ExportedGraph(embedder=keras_model, height=32, width=32)
        layer, card = whitening_fit.to_records(
            graph,
            Records(root / "records"),
            dimension=dimension,
            samples=samples,
            batch_size=4,
            seed=seed,
        )
        graph = dataclasses.replace(graph, whitening=layer)
        return graph.serve(photographs())["descriptor"].numpy(), card

    return fit


def test_fewer_dimensions_are_the_first_of_more(root, fit):
    more, _ = load(root / "whitened")(photographs())
    found, _ = fit(2)
    np.testing.assert_allclose(found, unit(more[:, :2]), atol=1e-5)


def test_whitening_is_fitted_to_a_seeded_sample(fit):
    first, told = fit(2, samples=6)
    assert (told["samples"], told["seed"]) == (6, 0)
    np.testing.assert_allclose(fit(2, samples=6)[0], first, atol=1e-6)
    other, _ = fit(2, samples=6, seed=1)
    assert np.abs(other - first).max() > 1e-2


def test_whitening_is_learned_from_pairs_of_train(root, tmp_path):
    """Each query with one positive, by the formula on what Keras gives."""
    version = export.run(
        ExportOptions(
            checkpoints=root / "checkpoints",
            export=tmp_path / "export",
            records=root / "records",
            whitening_dimension=3,
            whitening_pairs=True,
        )
    )
    servable = serving.load(version)
    told = servable.metadata["whitening"]
    records = Records(root / "records")
    queries = records.rows("train", "query")
    assert told["fitted_to"] == (
        f"{len(queries)} pairs of a query and a positive of the train split"
    )
    graph = ExportedGraph(embedder=embedder(root), height=32, width=32)
    config, _ = read_state(root / "checkpoints")
    options = ExportOptions(
        checkpoints=root / "checkpoints",
        export=tmp_path / "export",
        whitening_dimension=3,
        whitening_pairs=True,
    )
    layer, again = whitening_fit.fit(graph, records, options, config)
    assert again == told
    encoded = photographs()
    found, _ = servable(encoded)
    moved = expected(root, encoded) @ np.asarray(layer.projection)
    np.testing.assert_allclose(
        found, unit(moved + np.asarray(layer.bias)), atol=1e-5
    )


def test_truncated_descriptors_are_the_first_numbers(root, tmp_path):
    def truncated(**options):
        version = export.run(
            ExportOptions(
                checkpoints=root / "checkpoints",
                export=tmp_path / "export",
                records=root / "records",
                **options,
            )
        )
        return serving.load(version)

    encoded = photographs()
    whole = expected(root, encoded)
    graph = ExportedGraph(
        embedder=embedder(root), height=32, width=32, truncate_dimension=7
    )
    assert (graph.dimension, graph.card()["truncated_from"]) == (7, 384)
    np.testing.assert_allclose(
        graph.serve(encoded)["descriptor"], unit(whole[:, :7]), atol=1e-5
    )
    servable = truncated(whitening_dimension=WHITENED, truncate_dimension=2)
    assert servable.metadata["truncated_from"] == WHITENED
    assert servable.metadata["whitening"]["dimension"] == WHITENED
    np.testing.assert_allclose(
        servable(encoded)[0],
        unit(whitened(root, whole, WHITENED)[:, :2]),
        atol=1e-5,
    )
    for options, most in (({}, 384), ({"whitening_dimension": 5}, 5)):
        with pytest.raises(ValueError, match=f"1 to {most} .*={most + 1}"):
            truncated(truncate_dimension=most + 1, **options)


def test_descriptors_of_several_scales_are_averaged(root, tmp_path):
    with flagsaver.as_parsed(
        checkpoints=str(root / "checkpoints"),
        export=str(tmp_path / "export"),
        records=str(tmp_path / "moved_away"),  # not needed for this
        scales="1,0.7071,0.5",
        model_licence="MIT",
    ):
        export.main(["export"])
    encoded = photographs()
    batch = np.stack(
        [image_decoding.load(one, height=32, width=32) for one in encoded]
    )
    # Unknown sizes, for a model that was built for one.
    any_size = [tf.TensorSpec((None, None, None, 3), tf.uint8)]
    embed = tf.function(embedder(root), input_signature=any_size)
    total = np.float64(embed(batch))
    for size in (23, 16):  # 32 x 0.7071 = 22.6
        smaller = image_decoding.resize(batch, height=size, width=size)
        total += np.float64(embed(smaller))
    servable = serving.load(tmp_path / "export")
    found, _ = servable(encoded)
    np.testing.assert_allclose(found, unit(total / 3), atol=1e-5)
    signature = servable._model.signatures["embed_tensor"]
    found = signature(images=tf.constant(batch, tf.float32))["descriptor"]
    np.testing.assert_allclose(found, unit(total / 3), atol=1e-5)
    assert servable.metadata["scales"] == [1, 0.7071, 0.5]
    assert servable.metadata["licence"] == "MIT"
    assert servable.metadata["training_images"] is None


def test_the_other_signature_takes_pixels(root):
    encoded = photographs()
    loaded = tf.saved_model.load(str(root / "export" / "1"))
    batch = np.stack(
        [image_decoding.load(one, height=32, width=32) for one in encoded]
    ).astype(np.float32)
    found = loaded.signatures["embed_tensor"](images=tf.constant(batch))
    np.testing.assert_allclose(
        found["descriptor"], expected(root, encoded), atol=1e-5
    )


@pytest.mark.parametrize("name", ["export", "whitened"])
def test_the_graph_has_no_python_in_it(root, name):
    path = root / name / "1" / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    library = saved.meta_graphs[0].graph_def.library.function
    ops = {node.op for function in library for node in function.node_def}
    assert {"DecodeJpeg", "IgnoreErrorsDataset"} <= ops
    assert not {op for op in ops if "PyFunc" in op or ">" in op}
    # One dataset per call, no state that a server would have to initialise.
    assert not {op for op in ops if "Iterator" in op or "Generator" in op}


def test_the_card_of_an_export(root):
    metadata = load(root / "export").metadata
    assert metadata["dimension"] == 4 * 96
    assert (metadata["image_height"], metadata["image_width"]) == (32, 32)
    fingerprint = Records(root / "records").fingerprint
    assert metadata["training"]["records_fingerprint"] == fingerprint
    assert metadata["training_images"]["train/database"] == 12
    assert set(metadata["validation"]["recall_at"]) == {"1", "5", "10"}
    _, state = read_state(root / "checkpoints")
    choice = metadata["epoch_choice"]
    assert choice["epoch"] == metadata["checkpoint"] == state["best"]
    assert choice["recall_at"] == metadata["validation"]["recall_at"]
    assert choice["recall_at_before"] == state["history"][0]["recall_at"]
    assert (choice["epochs"], choice["val_queries"]) == (2, 12)
    assert metadata["whitening"] is None
    assert metadata["licence"] == "CC-BY-4.0"
    assert "upright by the EXIF header" in metadata["preprocessing"]


def test_the_card_tells_of_the_whitening(root):
    metadata = load(root / "whitened").metadata
    assert metadata["dimension"] == WHITENED
    told = metadata["whitening"]
    assert (told["dimension"], told["samples"]) == (WHITENED, 12)
    assert told["fitted_to"] == "database images of the train split"
    assert told["records_fingerprint"] == Records(root / "records").fingerprint
    records = Records(root / "records")
    rows = records.rows("train", "database")
    descriptors = np.float64(expected(root, records.read_images(rows)))
    variances = np.linalg.eigvalsh(np.cov(descriptors.T))[::-1]
    assert told["explained_variance"] == pytest.approx(
        variances[:WHITENED].sum() / variances.sum(), abs=1e-4
    )


def test_requests_to_warm_up_with(root):
    folder = root / "whitened" / "1"
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    one, batch = [r.numpy() for r in tf.data.TFRecordDataset([str(path)])]
    # Its last field is the image, so that this is all of it.
    encoded = one[one.index(b"\xff\xd8\xff") :]
    assert one == warmup_requests.prediction_log([encoded])
    assert batch == warmup_requests.prediction_log(8 * [encoded])
    assert image_decoding.decode(encoded).shape == (32, 32, 3)
    assert serving.load(folder)([encoded])[1].all()


def test_requests_are_encoded_as_by_the_official_classes():
    # SerializeToString(deterministic=True) of a PredictionLog of
    # tensorflow-serving-api 2.20.0, for the same images.
    assert warmup_requests.prediction_log([b"one", b"\xff\xd8two"]).hex() == (
        "323a0a380a111a0f73657276696e675f64656661756c7412230a0b696d6167655f62"
        "797465731214080712041202080242036f6e654205ffd874776f"
    )
    long = warmup_requests.prediction_log([2 * bytes(range(256))])
    assert len(long) == 567
    assert hashlib.sha256(long).hexdigest() == (
        "1875db83b2ec45a8725fe0efd09dbed4f9bebb9fa6eb096ebb52a9f5e99e92be"
    )


def test_the_fingerprint_is_of_all_that_descriptors_depend_on(root):
    keras_model = model.build_embedder(backbone="small", aggregation="gem")
    whitening = model.Whitening(2)
    whitening.build((None, 96))
    fingerprints = []
    for change in (
        {},
        {"height": 33},
        {"width": 33},
        {"scales": [1, 0.5]},
        {"truncate_dimension": 3},
        {"whitening": whitening},
    ):
        settings = {"height": 32, "width": 32} | change
        graph = ExportedGraph(embedder=keras_model, **settings)
        fingerprints.append(graph.fingerprint)
    weight = keras_model.weights[0]
    values = weight.numpy()
    weight.assign(values + np.eye(1, values.size).reshape(values.shape) * 1e-6)
    graph = ExportedGraph(embedder=keras_model, height=32, width=32)
    fingerprints.append(graph.fingerprint)
    assert len(set(fingerprints)) == 7
    weight.assign(values)
    assert graph.fingerprint == fingerprints[0]
    graph = ExportedGraph(embedder=embedder(root), height=32, width=32)
    assert load(root / "export").metadata["fingerprint"] == graph.fingerprint


@pytest.mark.parametrize("name", ["export", "whitened"])
def test_every_image_is_answered_with_the_fingerprint(root, name):
    servable = load(root / name)
    for encoded in ([], [b"", *photographs()]):
        outputs = servable._serve(image_bytes=tf.constant(encoded, tf.string))
        assert outputs["fingerprint"].numpy().tolist() == (
            len(encoded) * [servable.fingerprint.encode()]
        )


def test_a_card_without_a_fingerprint_is_refused(root, tmp_path):
    shutil.copytree(root / "export" / "1", tmp_path / "1")
    (tmp_path / "1" / "sare_tf.json").write_text('{"dimension": 384}')
    with pytest.raises(ValueError, match="lacks 'fingerprint'.*run .*export"):
        serving.load(tmp_path)


def test_half_an_export_is_not_taken_for_whole(root, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(export_folder.sealed_json, "write", fail)
    with pytest.raises(OSError, match="No space"):
        export.run(
            ExportOptions(
                checkpoints=root / "checkpoints", export=tmp_path / "export"
            )
        )
    with pytest.raises(FileNotFoundError, match="Expected an export"):
        serving.load(tmp_path / "export")


def test_an_epoch_that_is_not_there(root):
    with pytest.raises(FileNotFoundError, match="Received: epoch='epoch-0077'"):
        export.run(
            ExportOptions(
                checkpoints=root / "checkpoints",
                export=root / "other",
                epoch="epoch-0077",
            )
        )


def test_no_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"sare_tf.train .* first"):
        export.run(
            ExportOptions(checkpoints=tmp_path, export=tmp_path / "export")
        )


def test_whitening_that_cannot_be_fitted(root, tmp_path):
    def run(**options):
        export.run(
            ExportOptions(
                checkpoints=root / "checkpoints",
                export=tmp_path / "export",
                **options,
            )
        )

    records = root / "records"
    with pytest.raises(ValueError, match="fit whitening to.*records=None"):
        run(whitening_dimension=2)
    with pytest.raises(ValueError, match="at least 13 samples.* 12 samples"):
        run(whitening_dimension=12, records=records)
    with pytest.raises(ValueError, match="at least 4 samples.* 3 samples"):
        run(whitening_dimension=3, records=records, whitening_samples=3)
    with pytest.raises(ValueError, match="from 1 to 384.*dimension=400"):
        run(whitening_dimension=400, records=records)
    assert not (tmp_path / "export").exists()


def test_other_records_are_refused_unless_allowed(root, tmp_path):
    other = toy_training.records(tmp_path, places=3)
    options = {
        "checkpoints": root / "checkpoints",
        "export": tmp_path / "export",
        "records": other,
        "whitening_dimension": 2,
    }
    with pytest.raises(ValueError, match="trained on, with fingerprint"):
        export.run(ExportOptions(**options))
    version = export.run(ExportOptions(**options, allow_other_records=True))
    metadata = serving.load(version).metadata
    fingerprint = Records(other).fingerprint
    assert metadata["whitening"]["records_fingerprint"] == fingerprint
    assert metadata["training_images"] is None


def test_records_damaged_since_are_refused(root, tmp_path, monkeypatch):
    # With good checksums: another image than the builder checked.
    good = Records.read_images
    bad = [b"text", *damaged()]

    def read(records, rows):
        return [*list(good(records, rows))[:6], *bad]

    monkeypatch.setattr(Records, "read_images", lambda *a: iter(read(*a)))
    rows = Records(root / "records").rows("train", "database")
    with pytest.raises(ValueError, match="decoded. Received: ") as caught:
        export.run(
            ExportOptions(
                checkpoints=root / "checkpoints",
                export=tmp_path / "export",
                records=root / "records",
                whitening_dimension=2,
                batch_size=5,
            )
        )
    assert rows["image_id"].iloc[6] in str(caught.value)


@pytest.mark.parametrize("scales", [(), (1, 0), (1, -1), (float("inf"),)])
def test_scales_that_are_not_positive(root, tmp_path, scales):
    with pytest.raises(ValueError, match="at least one scale.*scales="):
        export.run(
            ExportOptions(
                checkpoints=root / "checkpoints",
                export=tmp_path / "export",
                scales=scales,
            )
        )


def test_an_export_with_other_outputs_is_refused(root, tmp_path):
    class Older(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def serve(self, image_bytes):
            return {"descriptor": tf.strings.length(image_bytes)}

    module = Older()
    tf.saved_model.save(
        module, str(tmp_path), signatures={"serving_default": module.serve}
    )
    shutil.copy(root / "export" / "1" / "sare_tf.json", tmp_path)
    with pytest.raises(ValueError, match="Expected a whole export"):
        serving.load(tmp_path)
    toy_damage.forget_digests(tmp_path / "sare_tf.json")
    with pytest.raises(
        ValueError, match="fingerprint, valid. Received: .*desc"
    ):
        serving.load(tmp_path)


def test_scales_that_are_no_numbers(root):
    with (
        flagsaver.as_parsed(
            checkpoints=str(root / "checkpoints"),
            export=str(root / "other"),
            scales="1,half",
        ),
        pytest.raises(ValueError, match="numbers. Received: --scales=1,half"),
    ):
        export.main(["export"])


def test_flags_of_another_network_are_refused(root):
    with (
        flagsaver.as_parsed(
            checkpoints=str(root / "checkpoints"),
            export=str(root / "another"),
            num_clusters="64",
        ),
        pytest.raises(ValueError, match="--num_clusters=64 but .* has 4"),
    ):
        export.main(["export"])


def test_versions_count_up_and_a_call_exports_what_the_stage_does(
    root, tmp_path
):
    settings = {"scales": (1, 0.5), "truncate_dimension": 7}
    path = root / "checkpoints" / "epoch-0000" / "model.keras"
    network = load_embedder(path)
    options = ExportOptions(
        checkpoints=root / "checkpoints",
        export=tmp_path,
        epoch="epoch-0000",
        **settings,
    )
    versions = [
        export.run(options),
        export(network, str(tmp_path), height=32, width=32, **settings),
    ]
    assert versions == [tmp_path / "1", tmp_path / "2"]
    stage, call = serving.load(tmp_path / "1"), serving.load(tmp_path)
    assert call.path.name == "2"  # the highest
    # The same model, exported again.
    assert call.fingerprint == stage.fingerprint
    encoded = photographs()
    np.testing.assert_array_equal(call(encoded)[0], stage(encoded)[0])
    differing = {
        name
        for name, value in stage.metadata.items()
        if call.metadata[name] != value
    }
    about_training = {"checkpoint", "epoch_choice", "validation", "training"}
    assert differing <= about_training | {"made", "digests"}
    assert stage.metadata.keys() == call.metadata.keys()
    # Validation is doubted where it chose the epoch, not where that is named.
    assert stage.metadata["checkpoint"] == "epoch-0000"
    assert stage.metadata["epoch_choice"]["warnings"] == []
    chosen = load(root / "export").metadata["epoch_choice"]
    (few,) = chosen["warnings"]
    assert "Validation has 12 queries" in few


def test_whitening_by_the_public_functions(root, tmp_path):
    network = embedder(root)
    records = Records(root / "records")
    images = records.read_images(records.rows("train", "database"))
    layer = model.fit_whitening(expected(root, images), WHITENED)
    export(network, tmp_path, height=32, width=32, whitening=layer)
    servable = serving.load(tmp_path)
    encoded = photographs()
    np.testing.assert_allclose(
        servable(encoded)[0],
        whitened(root, expected(root, encoded), WHITENED),
        atol=1e-5,
    )
    assert servable.metadata["whitening"] == {
        "dimension": WHITENED,
        "fitted_to": "given to export",
    }
    other = model.fit_whitening(np.eye(9, 5), 2)
    with pytest.raises(ValueError, match="of 384 numbers.*fitted to 5.*fit_w"):
        export(network, tmp_path, height=32, width=32, whitening=other)
    twice = keras.Model(network.input, layer(network.output), name="embedder")
    with pytest.raises(ValueError, match="whitening=None for an embedder"):
        export(twice, tmp_path, height=32, width=32, whitening=layer)


def test_a_mixed_network_is_exported_in_float32(tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = model.build_embedder(backbone="small", aggregation="gem")
    finally:
        keras.config.set_dtype_policy(before)
    export(mixed, tmp_path, height=32, width=32)
    full = model.build_embedder(backbone="small", aggregation="gem")
    full.set_weights(mixed.get_weights())
    image = photographs()[1]
    pixels = image_decoding.load(image, height=32, width=32)[None]
    found, _ = serving.load(tmp_path)([image])
    np.testing.assert_allclose(found, full(pixels), atol=1e-5)
    assert mixed.get_layer("backbone").layers[1].compute_dtype == "bfloat16"


def test_a_backbone_of_ones_own(tmp_path):
    """Of one size only, with its preprocessing, and tokens."""
    backbone = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 8, strides=8),
            keras.layers.Reshape((-1, 4)),
        ]
    )
    own = model.build_embedder(backbone=backbone, num_clusters=2)
    export(own, tmp_path, height=32, width=32)
    image = photographs()[1]
    pixels = image_decoding.load(image, height=32, width=32)[None]
    found, _ = serving.load(tmp_path)([image])
    np.testing.assert_allclose(found, own(pixels), atol=1e-5)
    with pytest.raises(ValueError, match="=32, width=32, the only .*=33"):
        export(own, tmp_path, height=33, width=32)
    with pytest.raises(ValueError, match=r"scales=\(1,\) for a.*\(32, 32\)"):
        export(own, tmp_path, height=32, width=32, scales=(1, 0.5))


def test_models_that_are_no_embedder_are_refused(tmp_path):
    images = keras.Input((None, None, 3))
    means = keras.layers.GlobalAveragePooling2D()(images)
    mean = keras.Model(images, means)
    with pytest.raises(ValueError, match=r"length 1.*has length \d+.*UnitNorm"):
        export(mean, tmp_path, height=32, width=32)
    for size in ({"height": 0, "width": 32}, {"height": 32, "width": -1}):
        with pytest.raises(ValueError, match="each at least 1. Received: hei"):
            export(mean, tmp_path, **size)
    small = model.build_embedder(backbone="small", aggregation="gem")
    for other in (model.over_tuples(small), PlaceNetwork(small)):
        with pytest.raises(ValueError, match=r"an embedder.*get_layer\('emb"):
            export(other, tmp_path, height=32, width=32)
    assert not list(tmp_path.iterdir())
