"""Every stage refuses an output that another run writes, before all else."""

import importlib
import os

import pytest

from sare_tf import flags as stage_flags
from sare_tf.records.options import RecordOptions
from sare_tf.runtime import run_lock

# Options that name an output; the inputs do not exist.
STAGES = {
    "build_records": {"dataset": "none", "records": "out"},
    "check": {"dataset": "none", "findings": "out"},
    "compare": {"runs": ["none", "none"], "comparison": "out"},
    "evaluate": {
        **dict.fromkeys(["index", "records", "export"], "none"),
        "evaluation": "out",
    },
    "export": {"checkpoints": "none", "export": "out"},
    "export_dataset": {"records": "none", "out": "out"},
    "export_local_features": {"source": "none", "out": "out"},
    "export_onnx": {"export": "none", "out": "out"},
    "export_vectors": {
        **dict.fromkeys(["index", "records", "export"], "none"),
        "layout": "numpy",
        "out": "out",
    },
    "export_weights": {
        "checkpoints": "none",
        "format": "openibl",
        "out": "out",
    },
    "import_weights": {"source": "none", "out": "out"},
    "index": {"records": "none", "export": "none", "index": "out"},
    "synthetic_city": {"out": "out"},
}
# These hold the lock later: only the chief of several workers, and while a
# picture is drawn. Their own tests show it.
LATER = {"train", "locate"}
# They write new files only, or none.
NO_LOCK = {"init", "data_service"}


def test_every_stage_is_here():
    assert STAGES.keys() | LATER | NO_LOCK == stage_flags.OPTIONS.keys()


@pytest.mark.parametrize("stage", STAGES)
def test_an_output_that_is_being_written(tmp_path, monkeypatch, stage):
    monkeypatch.chdir(tmp_path)
    options = stage_flags.OPTIONS[stage](**STAGES[stage])
    module = importlib.import_module(f"sare_tf.{stage}")
    with (
        run_lock.only_run("out"),
        pytest.raises(BlockingIOError, match=f"process {os.getpid()} of"),
    ):
        module.run(options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ({"dataset": "a", "records": "b"}, "b"),
        ({"records": "b", "tuple_list": "c", "tuples": "d"}, "d"),
        ({"records": "b", "verify": True}, None),
    ],
)
def test_what_build_records_writes(options, written):
    assert RecordOptions(**options).written == written
