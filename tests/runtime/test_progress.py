"""A pass over images, as a log file gets it."""

import logging
import re
import time

import pytest

from sare_tf.runtime import progress


def test_a_log_file_gets_one_line(caplog, capsys):
    with (
        caplog.at_level(logging.INFO),
        progress.over_images("Mining", total=5) as shown,
    ):
        shown.advance(3, loss=0.5)
        shown.advance(2, loss=0.25)
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith("Mining: 5 images in ")
    assert line.endswith(" images/s, loss 0.25.")
    assert capsys.readouterr().err == ""  # no bar: this is no terminal
    assert shown.images == 5
    seconds = shown.seconds
    assert shown.images_per_s == pytest.approx(5 / seconds)
    assert shown.seconds == seconds  # it has ended


def test_a_terminal_gets_a_bar_with_time_left(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress.over_images("Mining", total=5) as shown:
        time.sleep(0.15)  # a bar is drawn ten times a second at most
        shown.advance(3)
    bar = capsys.readouterr().err
    assert re.search(r"Mining: +60%.* 3/5 \[00:00<00:00, .*image/s\]", bar)


def test_a_long_pass_logs_its_quarters_in_a_file(caplog, monkeypatch):
    clock = iter(range(0, 10_000, 7))  # seconds
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO), progress.bar("embed", total=40) as bar:
        for _ in range(8):
            bar.update(5)
    # 14 s lie between quarters, so that every second one is logged.
    assert caplog.messages == ["embed: 20 of 40 images."]
    caplog.clear()
    with caplog.at_level(logging.INFO), progress.bar("embed") as bar:
        for _ in range(8):
            bar.update(5)
    assert caplog.messages == []


def test_an_error_ends_a_pass_without_a_line(caplog):
    def fail():
        with progress.over_images("Mining", total=5):
            raise ValueError("lost")

    with caplog.at_level(logging.INFO), pytest.raises(ValueError, match="lost"):
        fail()
    assert not caplog.records
