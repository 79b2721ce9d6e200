"""From weights to the first answer: the network that is made of a folder."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import toy_photos
import toy_torchvision
from paths import ROOT, SHARED
from PIL import Image
from toy_downloads import running

from sare_tf import serving
from sare_tf.model import published_files
from sare_tf.model.torchvision import mobilenets, published_weights
from sare_tf.photo_database import exporting, network

PUBLISHED = SHARED / "data/weights/mobilenet_v2-b0353104.pth"
TOWER = SHARED / "data/ie_tower_320/images"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of MobileNetV2 as torchvision names its arrays."""
    path = tmp_path_factory.mktemp("weights") / "any_name"
    arrays = {
        name: toy_torchvision.array(name, shape)
        for layer in mobilenets.build_v2().layers
        if layer.weights
        for name, shape in published_weights._stored(layer)
    }
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


def _card(database):
    return json.loads((database.export / "1/sare_tf.json").read_text())


def _finds_too_few(embedder, images):
    raise ValueError("Expected at least 32 distinct descriptors.")


def test_clusters_follow_the_folder(weights, tmp_path, monkeypatch):
    """None where there are none to find, new ones once it has grown."""
    folder, cache = tmp_path / "photos", tmp_path / "cache"
    folder.mkdir()
    Image.new("RGB", (64, 64), "grey").save(folder / "grey.png")
    monkeypatch.setattr(network, "initialise_netvlad", _finds_too_few)
    database = toy_photos.prepare(folder, cache, weights=weights)
    assert _card(database)["network"]["aggregation"] == "gem"
    assert len(toy_photos.contents(database)) == 1
    monkeypatch.undo()
    toy_photos.photographs(folder, places=3, views=1)
    assert toy_photos.prepare(folder, cache, weights=weights) == database
    card = _card(database)
    assert card["network"]["aggregation"] == "netvlad"
    assert card["samples"] == 4
    descriptors = toy_photos.contents(database)
    # As the export describes the file itself, which is not made smaller.
    servable = serving.load(database.export)
    (own,), _ = servable([(folder / "1/0.jpg").read_bytes()])
    np.testing.assert_allclose(
        np.frombuffer(descriptors["1/0.jpg"], np.float32), own, atol=1e-5
    )
    # Not for each photograph that is added.
    toy_photos.photographs(folder, places=4, views=1)
    database = toy_photos.prepare(folder, cache, weights=weights)
    assert _card(database) == card
    assert len(toy_photos.contents(database)) == 5


def test_clusters_are_found_in_part_of_many():
    for count, samples, current in (
        (1, 1, True),
        (2, 1, False),
        (9000, 251, True),
        (9000, 250, False),
        (9000, 500, True),
    ):
        assert exporting.serves(samples, count=count) == current


class _Graph:
    """Describes "photographs" that are descriptors already."""

    def embed_function(self, batch):
        return {"descriptor": batch}


@pytest.mark.parametrize(
    ("samples", "rank", "copies", "expected"),
    [
        (31, 96, 0, None),
        (32, 96, 0, 16),
        (90, 96, 0, 45),
        (400, 96, 0, 96),
        (400, 40, 0, 40),
        (400, 12, 0, None),
        # Copies do not count, nor does a folder of one photograph alone.
        (40, 96, 60, 20),
        (1, 96, 99, None),
    ],
)
def test_whitening_by_what_differs(samples, rank, copies, expected):
    rng = np.random.default_rng(0)
    directions, _ = np.linalg.qr(rng.normal(size=(96, rank)))
    values = rng.normal(size=(samples, rank)) @ directions.T
    values = np.concatenate([values, np.repeat(values[:1], copies, axis=0)])
    values += rng.normal(size=values.shape) * 1e-6
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    batches = np.array_split(values.astype(np.float32), 3)
    layer = exporting.fit_whitening(_Graph(), batches)
    assert (layer and layer.dimension) == expected
    if layer:
        whitened = np.asarray(layer(values))
        assert np.isfinite(whitened).all()
        np.testing.assert_allclose(
            np.linalg.norm(whitened, axis=1), 1, atol=1e-5
        )


@pytest.mark.parametrize(
    ("aspect", "size"),
    [(4 / 3, (240, 320)), (16 / 9, (208, 368)), (0.75, (320, 240))],
)
def test_the_size_has_the_shape_of_the_photographs(aspect, size):
    assert network.Recipe().size(aspect) == size
    rows, columns = network.recipe_of("dinov2_vits14").size(aspect)
    assert rows % 14 == columns % 14 == 0


def test_weights_are_downloaded_once(weights, tmp_path, monkeypatch):
    folder, cache = tmp_path / "photos", tmp_path / "cache"
    toy_photos.photographs(folder, places=1, views=1)
    content = weights.read_bytes()
    with running(content=content) as server:
        published = published_files.PublishedFile(
            f"http://127.0.0.1:{server.server_address[1]}/net.pth",
            server.sha256[:8],
        )
        monkeypatch.setitem(published_files.PUBLISHED, "toy", published)
        database = toy_photos.prepare(folder, cache, weights="toy")
        assert (cache / "weights/net.pth").read_bytes() == content
        toy_photos.photographs(folder, places=2, views=1)
        toy_photos.prepare(folder, cache, weights="toy")
        assert server.requests == ["/net.pth"]
    # The export needs the file no more.
    shutil.rmtree(cache / "weights")
    assert toy_photos.prepare(folder, cache, weights="toy") == database


def test_without_a_network(tmp_path, monkeypatch):
    folder = toy_photos.photographs(tmp_path / "photos", places=1)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    cache = tmp_path / "cache"
    place = cache / "weights" / "mobilenet_v2-b0353104.pth"
    with pytest.raises(ConnectionError, match="Fetch https://.*put it at") as e:
        toy_photos.prepare(folder, cache)
    assert str(place) in str(e.value)
    # Before any work is done.
    assert not any(path.is_file() for path in cache.rglob("*"))


def test_weights_that_are_none(tmp_path):
    folder = toy_photos.photographs(tmp_path / "photos", places=1)
    cache = tmp_path / "cache"
    with pytest.raises(FileNotFoundError, match="mobilenet_v2.*'nothing'"):
        toy_photos.prepare(folder, cache, weights="nothing")
    assert not cache.exists()
    (tmp_path / "page.pth").write_text("<html>")
    with pytest.raises(ValueError, match="see whether it is a web page"):
        toy_photos.prepare(folder, cache, weights=tmp_path / "page.pth")


@pytest.mark.skipif(
    not (PUBLISHED.is_file() and TOWER.is_dir()),
    reason=f"{PUBLISHED} and {TOWER} are not there",
)
def test_the_first_answer(tmp_path):
    """On the command line, with the published file: eight places."""
    for clip in sorted((TOWER / "database").iterdir())[::16]:
        images = tmp_path / "photos" / clip.name
        images.mkdir(parents=True)
        for path in sorted(clip.iterdir())[::4]:
            shutil.copy(path, images)
    queries = [
        sorted((TOWER / "queries" / clip.name).iterdir())[0]
        for clip in sorted((tmp_path / "photos").iterdir())
    ]
    for _ in ("makes the index", "searches only"):
        done = subprocess.run(
            [sys.executable, "-m", "sare_tf.locate", "--json"]
            + [f"--photos={tmp_path / 'photos'}", f"--weights={PUBLISHED}"]
            + queries,
            cwd=ROOT,
            env=os.environ | {"SARE_TF_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        right = [
            answer["matches"][0]["image_id"].startswith(query.parent.name)
            for answer, query in zip(answers, queries, strict=True)
        ]
        assert np.mean(right) >= 0.75
    assert "Embedding" not in done.stderr
