"""The flagfile that a person starts with."""

import dataclasses
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from sare_tf import init
from sare_tf.dataset import readers
from sare_tf.dataset.options import InitOptions
from sare_tf.records.options import RecordOptions
from sare_tf.runtime import flagfiles
from sare_tf.training.options import TrainingOptions


def _parsed(path, options):
    with flagsaver.flagsaver():
        flags.FLAGS(flagfiles.insert(["", f"--flagfile={path}"]))
        return options.from_flags()


@pytest.mark.parametrize("reader", readers.READERS)
def test_a_flagfile_gives_the_options_it_was_made_of(reader, tmp_path):
    folder = tmp_path / "my photos"
    path = init.run(InitOptions(folder=folder, reader=reader))
    assert path == folder / "own.flags"
    built = _parsed(path, RecordOptions)
    assert built == RecordOptions(
        dataset=str(folder / "photos"),
        reader=reader,
        records=str(folder / "records"),
    )
    text = path.read_text("utf-8")
    # Options of the reader are there, as comments.
    assert ("# --utm_zone=\n" in text) == (
        "utm_zone" in readers.options_of(reader)
    )
    assert max(map(len, text.splitlines())) <= 80 + len(str(tmp_path))
    card = next(word for word in text.split() if word.endswith(".md"))
    assert f"--reader={reader}" in Path(card).read_text("utf-8")


def test_what_was_given_is_written(tmp_path):
    given = InitOptions(
        folder=tmp_path,
        dataset=tmp_path / "elsewhere",
        reader="csv_table",
        split_fractions=(0.5, 0.25, 0.25),
        utm_zone="17T",
        seed=3,
    )
    built = _parsed(init.run(given), RecordOptions)
    for field in dataclasses.fields(InitOptions):
        if field.name not in ("folder", "size"):
            value = getattr(given, field.name)
            assert getattr(built, field.name) == value, field.name


def test_sizes_are_networks_of_the_package(tmp_path):
    trained = {}
    templates = {
        "small": "own_photos",
        "scratch": "own_photos_from_scratch",
        "large": "own_photos_large",
    }
    for size, template in templates.items():
        path = init.run(InitOptions(folder=tmp_path / size, size=size))
        trained[size] = _parsed(path, TrainingOptions)
        expected = _parsed(f"sare_tf:{template}", TrainingOptions)
        folders = {
            name: str(tmp_path / size / name)
            for name in ("records", "checkpoints")
        }
        assert trained[size] == dataclasses.replace(expected, **folders)
    assert trained["small"].backbone == trained["small"].weights
    assert trained["small"].weights == "mobilenet_v2"
    assert trained["scratch"].backbone == "small"
    assert trained["scratch"].weights is None
    assert trained["large"].backbone == "vgg16"


def test_the_result_names_the_card_and_the_next_command(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    init.main(["init", "mine"])
    text = capsys.readouterr().out
    assert text.startswith("Flagfile in mine/own.flags. ")
    assert "own_photographs.md describes the layout of mine/photos: put" in text
    assert text.endswith("-m sare_tf.check --flagfile=mine/own.flags\n")
    (tmp_path / "photos").mkdir()
    init.run(InitOptions(folder="other", dataset="photos"))
    assert "describes the layout of photos.\n" in capsys.readouterr().out


def test_a_flagfile_is_not_replaced(tmp_path):
    init.run(InitOptions(folder=tmp_path))
    before = (tmp_path / "own.flags").read_bytes()
    with pytest.raises(ValueError, match="Expected a folder without own.flags"):
        init.run(InitOptions(folder=tmp_path, size="large"))
    assert (tmp_path / "own.flags").read_bytes() == before
    with pytest.raises(ValueError, match="Expected one folder. Received: "):
        init.main(["init"])
