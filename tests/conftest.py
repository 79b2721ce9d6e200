"""Settings that must be in place before TensorFlow is imported.

The fixtures are read by the tests of several modules, which must not change
their files.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from absl import logging
from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As stages do, so that processes which tests start compute as this one does.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread for each process that runs tests: two cores shared by two
    # TensorFlows are slower. Not by the environment, because the processes that
    # tests start need more: replicas wait for each other.
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)

# The same examples in every run, however slow the machine is.
settings.register_profile(
    "tests", deadline=None, derandomize=True, database=None
)
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _log_is_that_of_a_command():
    """Whatever an earlier test left of it."""
    logging.set_verbosity(logging.INFO)


@pytest.fixture(autouse=True, scope="session")
def _results_are_as_documented():
    import documented_results

    from sare_tf.runtime import stage_results

    with stage_results.written_by(documented_results.check):
        yield


@pytest.fixture(scope="session")
def toy_records(tmp_path_factory):
    """The folder of tiny records in three splits, see `toy_training`."""
    import toy_training

    return toy_training.records(tmp_path_factory.mktemp("toy_records"))


@pytest.fixture
def runtime_folder(monkeypatch):
    """The folder of the sockets of `--keep_warm`, whose names must be short."""
    folder = Path(tempfile.mkdtemp(prefix="w"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder / "sare_tf"
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def toy_run(toy_records, tmp_path_factory):
    """A run on `toy_records` with the options of `toy_training`.

    It was never disturbed; its attributes are folders: `finished`, and copies
    `after[epoch]` of what it was after each epoch.
    """
    import toy_training

    return toy_training.RecordedRun(
        tmp_path_factory.mktemp("toy_run"),
        records=toy_records,
        **toy_training.OPTIONS,
    )


# Modules that train, export or build whole runs, start processes or kill them:
# four fifths of the time. `make quick` leaves them out.
_SLOW = {
    "distributed/test_strategies.py",
    "distributed/test_workers.py",
    "evaluation/test_calibrating.py",
    "evaluation/test_evaluate_descriptors.py",
    "evaluation/test_reranking.py",
    "export/test_card.py",
    "export/test_descriptors.py",
    "export/test_export_function.py",
    "export/test_exported_whitening.py",
    "export/test_exports_that_cannot_be.py",
    "fuzz/test_fuzz.py",
    "locate/test_locate.py",
    "locate/test_locate_command.py",
    "locate/test_locate_parts.py",
    "locate/test_locate_rerank.py",
    "model/test_backbones.py",
    "model/test_compiled_metrics.py",
    "model/test_embedder.py",
    "model/test_graph_parts.py",
    "model/test_vit.py",
    "model/torchvision/test_torchvision_backbones.py",
    "photo_database/test_preparing.py",
    "photo_database/test_pretrained_network.py",
    "records/test_tuple_records.py",
    "runtime/test_tensorflow_import.py",
    "search/test_embedded_parts.py",
    "search/test_index_changes.py",
    "serving/servable/test_answers.py",
    "serving/servable/test_stages_by_server.py",
    "serving/test_file_embedding.py",
    "test_build_killed.py",
    "test_build_records.py",
    "test_check.py",
    "test_documents.py",
    "test_end_to_end.py",
    "test_evaluate.py",
    "test_export_onnx.py",
    "test_export_vectors.py",
    "test_import_weights.py",
    "test_index.py",
    "test_kept.py",
    "test_killed_training.py",
    "test_splits.py",
    "test_synthetic_city.py",
    "test_train.py",
    "test_wheel.py",
    "training/test_epoch_loop.py",
    "training/test_fine_tuning.py",
    "training/test_frozen_features.py",
    "training/test_place_batches.py",
    "training/test_place_network.py",
    "training/test_sampled_runs.py",
    "training/test_train_tuples.py",
    "training/test_unreadable_images.py",
}


def pytest_collection_modifyitems(items):
    tests = Path(__file__).parent
    if missing := [name for name in _SLOW if not (tests / name).is_file()]:
        raise pytest.UsageError(f"Expected slow modules: {missing} are absent.")
    for item in items:
        if item.path.relative_to(tests).as_posix() in _SLOW:
            item.add_marker(pytest.mark.slow)
    # First what takes long, so that all processes end at about the same time.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
