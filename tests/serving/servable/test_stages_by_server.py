"""The stages with --server, and the examples of the documents."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import toy_executor
import toy_search
from absl import flags
from absl.testing import flagsaver
from paths import ROOT
from toy_client import BOTH

from sare_tf import evaluate, export_vectors, index, locate, serving
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.records.records import Records
from sare_tf.search.opened_index import Index
from sare_tf.search.options import IndexOptions
from sare_tf.serving.options import ServableOptions

FLAGS = flags.FLAGS


@pytest.fixture(scope="module")
def stages(export, tmp_path_factory):
    root = tmp_path_factory.mktemp("stages")
    records = toy_search.records(root)
    index.run(
        IndexOptions(records=records, export=export, index=root / "index")
    )
    if not FLAGS.is_parsed():
        FLAGS.mark_as_parsed()
    return {"root": root, "records": records, "index": root / "index"}


@BOTH
def test_stages_give_the_same_by_a_server(
    toy, stages, export, protocol, tmp_path, capsys
):
    local = Index.open(stages["index"])
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(toy_search.jpeg(2, 99))
    with flagsaver.as_parsed(
        server=getattr(toy, protocol),
        records=str(stages["records"]),
        index=str(tmp_path / "index"),
        evaluation=str(tmp_path / "evaluation"),
        server_images_per_request="3",
        out=str(tmp_path / "vectors"),
        layout="numpy",
        k="3",
    ):
        index.main(["index"])
        evaluate.main(["evaluate"])
        locate.main(["locate", str(photo)])
        export_vectors.main(["export_vectors"])
    remote = Index.open(tmp_path / "index")
    np.testing.assert_allclose(remote.descriptors, local.descriptors, atol=1e-6)
    # Digests differ as the last bits of the descriptors do.
    for opened in (remote, local):
        del opened.metadata["segments"][0]["digests"]
    assert remote.metadata == local.metadata
    assert (tmp_path / "evaluation" / "report.html").is_file()
    opened = Records(stages["records"])
    images = opened.read_images(opened.rows("test", "query"))
    np.testing.assert_allclose(
        np.load(tmp_path / "vectors" / "queries.npy"),
        serving.load(export)(list(images))[0],
        atol=1e-6,
    )
    assert capsys.readouterr().out.count("@5002") == 3
    assert max(toy.requests) == 3
    # Either index is up to date for the other: one model.
    modified = (tmp_path / "index" / "index.json").stat().st_mtime_ns
    index.run(
        IndexOptions(
            records=stages["records"], export=export, index=tmp_path / "index"
        )
    )
    assert (tmp_path / "index" / "index.json").stat().st_mtime_ns == modified


@BOTH
def test_workers_embed_parts_by_a_server(toy, stages, protocol, tmp_path):
    index.run(
        IndexOptions(
            records=stages["records"],
            server=getattr(toy, protocol),
            index=tmp_path / "index",
        ),
        executor=toy_executor.PicklingExecutor(),
    )
    remote = Index.open(tmp_path / "index")
    local = Index.open(stages["index"])
    np.testing.assert_allclose(remote.descriptors, local.descriptors, atol=1e-6)
    # Digests differ as the last bits of the descriptors do.
    for opened in (remote, local):
        del opened.metadata["segments"][0]["digests"]
    assert remote.metadata == local.metadata


@BOTH
def test_an_index_of_another_model_is_refused(toy, stages, protocol):
    address = getattr(toy, protocol) + "/v1/models/sare_tf/versions/2"
    with pytest.raises(ValueError, match="export that built.*versions/2"):
        evaluate.run(
            EvaluationOptions(
                index=stages["index"],
                records=stages["records"],
                export=address,
                evaluation=stages["root"] / "evaluation",
            )
        )


def test_the_server_goes_before_an_export_of_the_same_model(
    toy, export, other, tmp_path
):
    def load(**values):
        with flagsaver.as_parsed(**values):
            return serving.load(serving.named(ServableOptions.from_flags()))

    assert load(export=str(export)).path == export / "1"
    server = {"server": toy.grpc}
    assert load(**server, export=str(export)).path == toy.grpc
    assert load(**server, export=str(tmp_path / "nothing")).path == toy.grpc
    assert load(**server, export="").path == toy.grpc
    with pytest.raises(ValueError, match="model of --export.*give --export= "):
        load(**server, export=str(other))
    with (
        flagsaver.flagsaver(server=None, export=None),
        pytest.raises(ValueError, match="Received no value for: --export"),
    ):
        ServableOptions.from_flags().require_model()


def _documented(toy, language):
    """The examples, with this server's addresses."""
    for name in ("docs/serving.md", "configs/serving/README.md"):
        text = (ROOT / name).read_text("utf-8")
        for block in text.split("```")[1::2]:
            named, _, code = block.partition("\n")
            if named == language and "localhost:850" in code:
                code = code.replace("grpc://localhost:8500", toy.grpc)
                yield code.replace("http://localhost:8501", toy.rest)


def test_python_examples_of_the_documentation(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.jpg"):
        Path(name).write_bytes(toy_search.jpeg(0, 0))
    examples = list(_documented(toy, "python"))
    assert len(examples) == 2
    for code in examples:
        names = {}
        exec(compile(code, "an example", "exec"), names)
        assert names["errors"] == {}
        assert names["descriptors"].shape == (2, toy_search.DIMENSION)
    assert len(toy.requests) == 4


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl_example_of_the_documentation(toy, export, tmp_path):
    (tmp_path / "PHOTO.jpg").write_bytes(toy_search.jpeg(0, 0))
    (code,) = [c for c in _documented(toy, "") if "base64" in c]
    done = subprocess.run(
        ["bash", "-ec", code], cwd=tmp_path, capture_output=True, check=True
    )
    status, _, answer = done.stdout.decode().partition("\n")
    assert json.loads(status)["model_version_status"][0]["state"] == "AVAILABLE"
    (row,) = json.loads(answer)["predictions"]
    expected, _ = serving.load(export)([toy_search.jpeg(0, 0)])
    np.testing.assert_allclose(row["descriptor"], expected[0], atol=1e-6)
    assert row["valid"]
