"""Names of published files, and what they stand for."""

import re

import pytest

from sare_tf.model import published_files
from sare_tf.model.registry import BACKBONES
from sare_tf.model.vit_architectures import DINOV2


def test_every_published_backbone_has_a_file():
    published = {
        name
        for name, backbone in BACKBONES.items()
        if backbone.published_arrays or name in DINOV2
    }
    assert set(published_files.PUBLISHED) == published


def test_addresses_and_digests():
    for name, published in published_files.PUBLISHED.items():
        assert published_files.find(name) == published
        assert published_files.find(published.name) == published
        assert re.fullmatch(r"[0-9a-f]{8}([0-9a-f]{56})?", published.sha256)
        assert published.url.startswith("https://")
    # As their authors write them.
    assert published_files.find("mobilenet_v2").url == (
        "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"
    )
    assert published_files.find("dinov2_vitb14_reg").url == (
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/"
        "dinov2_vitb14_reg4_pretrain.pth"
    )
    newer = published_files.find("resnet50-11ad3fa6.pth")
    assert newer.sha256 == "11ad3fa6"
    assert published_files.find("alexnet") is None


def test_files_are_kept_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SARE_TF_CACHE", str(tmp_path))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    published = published_files.find("mobilenet_v2")
    with pytest.raises(ConnectionError) as error:
        published_files.get(published)
    # Without a network it says which file to put where.
    place = str(tmp_path / "weights" / "mobilenet_v2-b0353104.pth")
    assert f"{published.url} on any machine" in str(error.value)
    assert place in str(error.value)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
