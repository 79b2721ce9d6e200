"""The converted graph gives the descriptors of the exported one."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

from sare_tf import export, export_onnx, model, serving
from sare_tf.serving.options import OnnxOptions
from sare_tf.training import run_folder
from sare_tf.training.options import ExportOptions

CONFIG = {
    "image_height": 32,
    "image_width": 48,
    "backbone": "small",
    "aggregation": "netvlad",
    "num_clusters": 3,
    "records_fingerprint": None,
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Of an untrained network, at one scale and at two."""
    root = tmp_path_factory.mktemp("onnx")
    embedder = model.build_embedder(backbone="small", num_clusters=3)
    run_folder.write_untrained(
        root / "run", CONFIG, network=model.over_tuples(embedder)
    )
    for name, scales in (("export", (1,)), ("scaled", (1, 0.5))):
        export.run(
            ExportOptions(
                checkpoints=root / "run", export=root / name, scales=scales
            )
        )
    return root / "export" / "1"


def test_onnx_runtime_gives_the_same_descriptors(exported, tmp_path):
    reason = "needs the extra onnx"
    pytest.importorskip("tf2onnx", reason=reason)
    onnxruntime = pytest.importorskip("onnxruntime", reason=reason)
    flags.FLAGS.mark_as_parsed()
    with flagsaver.as_parsed(
        export=str(exported.parent), out=str(tmp_path / "out")
    ):
        export_onnx.main(["export_onnx"])
    session = onnxruntime.InferenceSession(
        str(tmp_path / "out" / "model.onnx"),
        providers=["CPUExecutionProvider"],
    )
    signature = tf.saved_model.load(str(exported)).signatures["embed_tensor"]
    rng = np.random.default_rng(3)
    for shape in ((3, 32, 48, 3), (1, 50, 41, 3), (0, 32, 48, 3)):
        pixels = rng.integers(0, 256, shape).astype(np.float32)
        expected = signature(images=tf.constant(pixels))["descriptor"]
        (found,) = session.run(None, {"images": pixels})
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-5)
    card = json.loads((tmp_path / "out" / "sare_tf.json").read_text())
    del card["sha256"]
    assert card == serving.load(exported).metadata


def test_a_name_of_a_file_is_one(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(export_onnx, "_NEEDED", ())
    monkeypatch.setattr(export_onnx, "compare", lambda servable, path: 0.0)
    monkeypatch.setattr(
        export_onnx, "_convert", lambda export, path: path.write_text("model")
    )
    out = tmp_path / "new" / "demo.onnx"
    options = OnnxOptions(export=exported, out=out)
    assert export_onnx.run(options) == out
    assert out.read_text() == "model"
    names = {path.name for path in out.parent.iterdir()}
    assert names - {".demo.onnx.lock"} == {"demo.onnx", "demo.json"}
    card = (out.parent / "demo.json").read_bytes()
    assert card == (exported / "sare_tf.json").read_bytes()
    with pytest.raises(ValueError, match="Expected a new file"):
        export_onnx.run(options)


def test_what_is_refused(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(export_onnx, "_NEEDED", ("tf2onnx", "not_there"))
    with pytest.raises(ImportError, match=r"not_there. Run pip .*\[onnx\]"):
        export_onnx.run(OnnxOptions(export=exported, out=tmp_path / "out"))
    monkeypatch.setattr(export_onnx, "_NEEDED", ())
    with pytest.raises(ValueError, match="new folder. Received: out="):
        export_onnx.run(OnnxOptions(export=exported, out=tmp_path))

    with pytest.raises(ValueError, match=r"one scale.*scales=\[1.0, 0.5\]"):
        export_onnx.run(
            OnnxOptions(
                export=exported.parents[1] / "scaled", out=tmp_path / "out"
            )
        )

    monkeypatch.setattr(export_onnx, "_convert", lambda export, path: None)
    monkeypatch.setattr(export_onnx, "compare", lambda servable, path: 0.1)
    with pytest.raises(ValueError, match="differ by 0.0001 at most.*: 0.1 "):
        export_onnx.run(OnnxOptions(export=exported, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_graph_that_is_not_converted(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'no such operator' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(ValueError, match=r"\(no such operator\)"):
        export_onnx._convert(tmp_path, tmp_path / "model.onnx")
