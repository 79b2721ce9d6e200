"""Results of stages, as text, as JSON and in the log."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from sare_tf.runtime import stage_results


def _report():
    stage_results.report(
        "index",
        "Index of 3 images in a.",
        path=Path("a"),
        count=np.int64(3),
        recall_at={1: np.float32(0.5), 5: math.nan},
        sides=(1, None, True),
        next_command="sare-tf evaluate",
    )


def test_json_is_one_line_of_json_values(capsys):
    with stage_results.written_by(stage_results.as_json):
        _report()
        stage_results.report("check", "No findings.", ok=np.bool_(True))
    first, second = capsys.readouterr().out.splitlines()
    assert json.loads(first) == {
        "stage": "index",
        "path": "a",
        "count": 3,
        "recall_at": {"1": 0.5, "5": None},
        "sides": [1, None, True],
        "next": "sare-tf evaluate",
    }
    assert json.loads(second) == {"stage": "check", "ok": True, "next": None}


def test_text_ends_with_the_next_command(capsys):
    with stage_results.written_by(stage_results.as_text):
        _report()
        stage_results.report("check", "No findings.")
    assert capsys.readouterr() == (
        "Index of 3 images in a.\nNext: sare-tf evaluate\nNo findings.\n",
        "",
    )


def test_the_log_gets_results_where_no_command_runs(caplog, capsys):
    with stage_results.written_by(stage_results.as_log):
        _report()
    assert capsys.readouterr().out == ""
    assert caplog.messages == [
        "Index of 3 images in a.\nNext: sare-tf evaluate"
    ]


def test_an_error_gives_results_back_to_the_writer_before():
    written = []
    with stage_results.written_by(lambda *result: written.append(result)):
        with (
            pytest.raises(ValueError, match="wrong"),
            stage_results.written_by(stage_results.as_text),
        ):
            raise ValueError("wrong")
        stage_results.report("check", "Fine.")
    assert written == [("Fine.", {"stage": "check", "next": None})]


def test_a_command_logs_the_results_of_other_stages(capsys, caplog):
    writer = stage_results.only_of("check", stage_results.as_json)
    with stage_results.written_by(writer):
        _report()
        stage_results.report("check", "Fine.")
    assert capsys.readouterr().out == '{"stage": "check", "next": null}\n'
    assert caplog.messages[0].startswith("Index of 3 images")
