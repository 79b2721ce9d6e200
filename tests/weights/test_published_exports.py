"""Exports of published networks equal the networks; so does their ONNX."""

import json
import os

import numpy as np
import published_files
import pytest
import tensorflow as tf
import toy_published
from paths import SHARED
from published_files import CASES, describe

import sare_tf
from sare_tf import export_onnx, import_weights
from sare_tf.dataset import image_decoding
from sare_tf.model import exported_graph
from sare_tf.serving.options import OnnxOptions
from sare_tf.weights.options import ImportOptions

SLOW = pytest.mark.skipif(
    "SARE_TF_WEIGHTS" not in os.environ, reason="run by make test-weights"
)
# The others have the same layers.
QUICK = ("boq_resnet18", "megaloc")
PUBLISHED = SHARED / "data/weights/mobilenet_v2-b0353104.pth"


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch):
    published_files.shorten(monkeypatch)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return published_files.maker(tmp_path_factory)


def size_of(case):
    """Small, and of no multiples where the network takes them."""
    if case in ("megaloc", "anyloc"):
        return 45, 59
    if case == "mixvpr":
        return 64, 64
    return (64, 96) if "resnet" in case or case == "convap" else (42, 56)


@pytest.mark.parametrize(
    "case",
    [
        case if case in QUICK else pytest.param(case, marks=SLOW)
        for case in CASES
    ],
)
def test_an_export_is_the_network(networks, case, tmp_path):
    read, embedder = networks(case)
    height, width = size_of(case)
    sare_tf.export(embedder, tmp_path / "export", height=height, width=width)
    servable = sare_tf.load_export(tmp_path / "export")
    images = toy_published.pictures(height, width)
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    expected = describe(embedder, images)
    descriptors, valid = servable(encoded)
    assert valid.all()
    np.testing.assert_allclose(descriptors, expected, atol=1e-5, rtol=0)
    alone, _ = servable(encoded[1:])
    np.testing.assert_allclose(alone, expected[1:], atol=1e-5, rtol=0)
    # Images of another size are resized as the network was published.
    larger = toy_published.pictures(90, 111)
    interpolation = embedder.get_layer("preprocessing").interpolation
    settings = read.preprocessing
    assert interpolation.kind == settings.get("interpolation", "bilinear")
    assert interpolation.rounded == settings.get("rounded", True)
    resized = image_decoding.resize(
        larger, height=height, width=width, interpolation=interpolation
    )
    descriptors, _ = servable(
        [tf.io.encode_png(image).numpy() for image in larger]
    )
    expected = describe(embedder, resized)
    np.testing.assert_allclose(descriptors, expected, atol=1e-5, rtol=0)
    assert str(interpolation) in servable.metadata["preprocessing"]
    step = {"mixvpr": 0, "megaloc": 1, "anyloc": 1}
    if read.transformer is not None:
        step.setdefault(case, 14)
    assert servable.metadata["image_size_step"] == step.get(case, 1)


def test_the_size_comes_with_the_network(networks, tmp_path):
    """Of the stage and of the function; other sizes are refused."""

    def graph(case, height=None, width=None):
        _, embedder = networks(case)
        return exported_graph.of_embedder(embedder, height=height, width=width)

    mixvpr = graph("mixvpr")
    assert (mixvpr.height, mixvpr.width) == (64, 64)
    files = published_files.write(tmp_path, "mixvpr")
    import_weights.run(ImportOptions(**files, out=tmp_path / "run"))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["image_height"], config["image_width"]) == (64, 64)
    assert config["imported"]["format"] == "mixvpr"
    assert config["backbone"] == "torchvision_resnet18"
    with pytest.raises(ValueError, match="Expected height=64, width=64"):
        graph("mixvpr", 64, 80)
    with pytest.raises(ValueError, match="not published with. Received: hei"):
        graph("cosplace_resnet18", 64)
    salad = published_files.write(tmp_path, "salad")
    with pytest.raises(ValueError, match="Give --image_height=42 --image"):
        import_weights.run(
            ImportOptions(
                **salad, out=tmp_path / "other", image_height=40, image_width=56
            )
        )


@SLOW
@pytest.mark.parametrize(
    "case",
    ["salad", "megaloc", "boq_dinov2", "boq_resnet18", "mobilenet_v2"],
)
def test_onnx_runtime_gives_the_same_descriptors(networks, case, tmp_path):
    """`export_onnx` compares two sizes, where the network takes two."""
    reason = "needs the extra onnx"
    pytest.importorskip("tf2onnx", reason=reason)
    onnxruntime = pytest.importorskip("onnxruntime", reason=reason)
    if case == "mobilenet_v2":
        if not PUBLISHED.exists():
            pytest.skip("the published file is not in the repository")
        embedder = sare_tf.import_weights(PUBLISHED, aggregation="gem")
    else:
        _, embedder = networks(case)
    height, width = size_of(case)
    sare_tf.export(embedder, tmp_path / "export", height=height, width=width)
    path = export_onnx.run(
        OnnxOptions(export=tmp_path / "export", out=tmp_path / "onnx")
    )
    session = onnxruntime.InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    images = np.float32(toy_published.pictures(height, width))
    for batch in (images, images[1:]):
        (found,) = session.run(["descriptor"], {"images": batch})
        expected = describe(embedder, batch)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
