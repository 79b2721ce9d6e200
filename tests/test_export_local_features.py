"""The stage export_local_features, and the export as an extractor."""

import numpy as np
import pytest
import tensorflow as tf

from sare_tf import export_local_features, serving
from sare_tf.local_features import extractors, matching
from sare_tf.model import xfeat as network
from sare_tf.model.local_feature_graph import LocalFeatureGraph
from sare_tf.model.pretrained import safetensors_file
from sare_tf.runtime import sealed_json
from sare_tf.weights import xfeat
from sare_tf.weights.options import LocalExportOptions


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A file of random weights, with which everything is a keypoint."""
    model = network.build()
    model.get_layer("keypoint_head_plain").kernel.assign(
        4 * model.get_layer("keypoint_head_plain").kernel
    )
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    arrays = {}
    for block, convolutions in network.BLOCKS.items():
        for number in range(len(convolutions)):
            names = [
                xfeat._CONVOLUTION.format(block, number),
                *(one.format(block, number) for one in xfeat._STATISTICS),
            ]
            weights = [
                *model.get_layer(f"{block}_{number}_conv").get_weights(),
                *model.get_layer(f"{block}_{number}_norm").get_weights(),
            ]
            arrays |= dict(zip(names, weights, strict=True))
    for block, number in xfeat._PLAIN.items():
        kernel, bias = model.get_layer(f"{block}_plain").get_weights()
        arrays[f"{block}.{number}.weight"] = kernel
        arrays[f"{block}.{number}.bias"] = bias
    safetensors_file.write(
        path,
        {
            name: array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
            for name, array in arrays.items()
        },
    )
    return path


@pytest.fixture(scope="module")
def version(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("local") / "xfeat"
    return export_local_features.run(
        LocalExportOptions(
            source=source, out=out, local_count=50, local_side=96
        )
    )


@pytest.fixture(scope="module")
def encoded():
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (9, 12, 3), np.uint8)
    blocks = blocks.repeat(7, axis=0).repeat(7, axis=1)
    return tf.io.encode_png(blocks).numpy()


def test_the_export_computes_what_the_graph_does(source, version, encoded):
    assert version.name == "1"
    extractor = extractors.load(str(version.parent), count=1, longest_side=32)
    assert (extractor.count, extractor.dimension) == (50, 64)
    geometry = extractors.geometry_of(extractor, "homography")
    assert geometry.matching == matching.RULE_OF_XFEAT
    graph = LocalFeatureGraph(
        network=xfeat.read(source), count=50, longest_side=96
    )
    assert extractor.fingerprint == graph.fingerprint
    expected = graph.serve(tf.constant([encoded]))
    features, damaged = extractor([encoded, b"damaged"])
    assert features.num_valid > 5
    for name in ("keypoints", "vectors", "scores", "valid"):
        np.testing.assert_allclose(
            getattr(features, name), expected[name][0], atol=1e-5
        )
    lengths = np.linalg.norm(features.vectors[features.valid], axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
    assert (features.width, features.height) == (84, 63)
    assert (damaged.width, damaged.height, damaged.num_valid) == (0, 0, 0)
    assert extractor([]) == []


def test_it_is_served_with_requests_to_warm_up(version):
    model = tf.saved_model.load(str(version))
    outputs = model.signatures["serving_default"].structured_outputs
    shapes = {name: spec.shape.as_list() for name, spec in outputs.items()}
    assert shapes == {
        "keypoints": [None, 50, 2],
        "vectors": [None, 50, 64],
        "scores": [None, 50],
        "valid": [None, 50],
        "size": [None, 2],
        "fingerprint": [None],
    }
    warmup = version / "assets.extra" / "tf_serving_warmup_requests"
    assert warmup.stat().st_size > 0


def test_exports_of_another_kind_and_damaged_ones_are_refused(
    version, tmp_path
):
    with pytest.raises(FileNotFoundError, match="rootsift, xfeat or the fold"):
        extractors.load(str(tmp_path / "no"), count=1, longest_side=32)
    other = tmp_path / "other"
    other.mkdir()
    (other / "saved_model.pb").touch()
    sealed_json.write(
        other / "sare_tf.json", {"fingerprint": "f", "dimension": 64}
    )
    with pytest.raises(ValueError, match="which is of descriptors"):
        extractors.load(str(other), count=1, longest_side=32)
    with pytest.raises(ValueError, match="with the outputs descriptor"):
        serving.load(version)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for name in ("saved_model.pb", "sare_tf.json"):
        (damaged / name).write_bytes((version / name).read_bytes())
    with pytest.raises(ValueError, match="Expected a whole export of local"):
        extractors.load(str(damaged), count=1, longest_side=32)


def test_xfeat_stands_for_the_export_in_the_cache(
    source, tmp_path, monkeypatch
):
    monkeypatch.setenv("SARE_TF_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="export_local_features first"):
        extractors.load("xfeat", count=1, longest_side=32)
    version = export_local_features.run(LocalExportOptions(source=source))
    assert version == extractors.xfeat_folder() / "1"
    assert extractors.load("xfeat", count=1, longest_side=32).count == 1000
