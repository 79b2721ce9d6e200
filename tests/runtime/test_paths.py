import os
from pathlib import Path

import pytest

from sare_tf.runtime import paths
from sare_tf.runtime.options import Options, options, path_option


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATA", "disk")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "home")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("~", "{home}"),
        ("~/runs/a b", "{home}/runs/a b"),
        (Path("~/runs"), "{home}/runs"),
        ("$HOME/runs", "{home}/runs"),
        ("${HOME}s/$DATA", "{home}s/disk"),
        ("runs/~", "runs/~"),
        ("./~x", "./~x"),
        ("~root", os.path.expanduser("~root")),
        ("runs/$five$", "runs/$five$"),
        ("cost $5, or 5$", "cost $5, or 5$"),
        ("gs://bucket/folder", "gs://bucket/folder"),
        ("imagenet", "imagenet"),
    ],
)
def test_what_a_shell_expands(home, path, expected):
    Path("runs/$five$").mkdir(parents=True)
    assert paths.expand(path) == expected.format(home=home)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "~nobody-of-this-name/x",
            "name of a user after ~. Received: out='~no",
        ),
        ("$UNSET/records", "out='.UNSET/records' without UNSET. Set it"),
        ("runs/${EMPTY}/x", "without EMPTY"),
    ],
)
def test_what_a_shell_takes_for_empty(home, path, message):
    with pytest.raises(ValueError, match=message):
        paths.expand(path, name="out")


def test_names_that_exist(home):
    for name in ("~nobody-of-this-name", "$UNSET"):
        Path(name).mkdir()
        assert paths.expand(f"{name}/new") == f"{name}/new"


def test_commas_in_paths(home):
    for name in ("a", "b", "c, d", "c"):
        Path(name).mkdir()
    for text, expected in (
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("a, b,", ["a", "b"]),
        ("c, d", ["c, d"]),
        ("a,c, d,b", ["a", "c, d", "b"]),
        ("c,b", ["c", "b"]),
        ("new,a", ["new", "a"]),
    ):
        assert paths.split(text) == expected
    assert paths.expand_all("~/a, $DATA/b,c, d") == f"{home}/a,disk/b,c, d"


def test_options_that_are_paths(home):
    @options
    class Toy(Options):
        """A toy."""

        out: str | None = path_option(None, "A folder.")
        photos: tuple[str, ...] = path_option((), "Files.")
        index: str = path_option("x", "Folders.", several=True)

    toy = Toy(out="~/out", photos=["~/a", Path("$DATA/b")], index="~/a,~/b")
    assert toy.out == f"{home}/out"
    assert toy.photos == (f"{home}/a", "disk/b")
    assert toy.index == f"{home}/a,{home}/b"
    assert (Toy().out, Toy().index) == (None, "x")
    with pytest.raises(
        ValueError, match="Received: out='.UNSET' without UNSET"
    ):
        Toy(out="$UNSET")
    assert not Path("~").exists()
