"""Where files lie that can be made again."""

import sys

import pytest

from sare_tf.runtime import user_cache


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "HOME/.cache/sare_tf"),
        ("linux", {"XDG_CACHE_HOME": "/var/tmp/xdg"}, "/var/tmp/xdg/sare_tf"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "HOME/.cache/sare_tf"),
        ("darwin", {}, "HOME/Library/Caches/sare_tf"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/sare_tf/Cache"),
        ("linux", {"SARE_TF_CACHE": "~/own"}, "HOME/own"),
    ],
)
def test_the_folder(monkeypatch, tmp_path, platform, variables, expected):
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "SARE_TF_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    folder = user_cache.folder().as_posix()
    assert folder == expected.replace("HOME", tmp_path.as_posix())
