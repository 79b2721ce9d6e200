"""`sare_tf.export` for models of one's own."""

import keras
import numpy as np
import pytest
from toy_export import load, photographs

from sare_tf import export, model, serving
from sare_tf.dataset import image_decoding
from sare_tf.training.options import ExportOptions
from sare_tf.training.place_network import PlaceNetwork
from sare_tf.training.run_folder import load_embedder


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
