"""An index embedded by Apache Beam against one embedded without; an extra."""

import importlib.util
import os
import subprocess
import sys
import threading
import uuid

import numpy as np
import pytest
import toy_search
from absl import flags
from absl.testing import flagsaver

from sare_tf import index
from sare_tf.distributed import beam
from sare_tf.search import embedded_parts, segment_building
from sare_tf.search.opened_index import Index
from sare_tf.search.options import IndexOptions

# Beam's own, of its dependencies and of threads that outlive a pipeline.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
installed = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason="without Apache Beam: make test-extras",
)
THREADS = ["--direct_num_workers=3", "--direct_running_mode=multi_threading"]
# The way to a cluster: submitted over gRPC to a job service, here Beam's own.
PORTABLE = ["--job_endpoint=embed", "--environment_type=LOOPBACK"]
PROCESSES = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Records of 18 database images, an export, and the index of a stream."""
    root = tmp_path_factory.mktemp("toy")
    toy = {
        "records": toy_search.records(root),
        "export": toy_search.export(root / "export"),
    }
    index.run(IndexOptions(**toy, index=root / "index", batch_size=2))
    return {**toy, "out": root / "index"}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Five parts."""
    monkeypatch.setattr(segment_building, "_RECORD_EVERY", 4)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def on_beam(*beam_flags, runner="DirectRunner"):
    return beam.BeamRunner(runner, beam_flags)


def run(toy, out, *, executor=None, **options):
    inputs = {name: toy[name] for name in ("records", "export")}
    return index.run(
        IndexOptions(**inputs, batch_size=2, index=out, **options),
        executor=executor,
    )


@installed
@pytest.mark.parametrize(
    ("runner", "beam_flags"),
    [
        ("DirectRunner", []),
        ("DirectRunner", THREADS),
        ("DirectRunner", PROCESSES),
        ("PortableRunner", PORTABLE),
    ],
    ids=["one", "threads", "processes", "portable"],
)
def test_the_files_are_those_without_beam(toy, tmp_path, runner, beam_flags):
    run(toy, tmp_path / "index", executor=on_beam(*beam_flags, runner=runner))
    found = np.load(tmp_path / "index" / "descriptors.npy")
    expected = np.load(toy["out"] / "descriptors.npy")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert contents(tmp_path / "index") == contents(toy["out"])
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


@installed
def test_a_model_is_loaded_once_for_the_threads_of_a_process(tmp_path):
    for name in ("loads", "calls"):
        (tmp_path / name).mkdir()

    def load():
        (tmp_path / "loads" / uuid.uuid4().hex).touch()
        return np.zeros(1)

    def call(task, model):
        model[0] += 1
        name = f"{task}-{os.getpid()}-{threading.get_ident()}"
        (tmp_path / "calls" / name).touch()

    beam.BeamRunner("DirectRunner", THREADS).map(
        call, range(12), folder=tmp_path, load=load
    )
    assert len(list((tmp_path / "loads").iterdir())) == 1
    called = [path.name.split("-") for path in (tmp_path / "calls").iterdir()]
    assert sorted(int(task) for task, _, _ in called) == list(range(12))
    assert {process for _, process, _ in called} == {str(os.getpid())}


@installed
def test_a_part_that_fails_leaves_the_others(toy, tmp_path, monkeypatch):
    """The next run, with Beam or without, embeds only that one."""
    real = embedded_parts.embed

    def embed_all_but_one(part, servable, *, task):
        if part.first == 8:
            raise ValueError("Expected JPEG or PNG images. Received: 8.jpg.")
        real(part, servable, task=task)

    monkeypatch.setattr(embedded_parts, "embed", embed_all_but_one)
    with pytest.raises(OSError, match=r"8.jpg. \(and 0 other tasks of 5\)"):
        run(toy, tmp_path / "index", executor=on_beam())
    assert not (tmp_path / "index").exists()
    with pytest.raises(OSError, match=r"8.jpg. \(and 0 other tasks of 1\)"):
        run(toy, tmp_path / "index", executor=on_beam())
    monkeypatch.setattr(embedded_parts, "embed", real)
    run(toy, tmp_path / "index", executor=on_beam())
    assert contents(tmp_path / "index") == contents(toy["out"])


@installed
def test_a_model_that_workers_cannot_load(toy, tmp_path):
    def load():
        raise FileNotFoundError("Expected an export on the worker.")

    with pytest.raises(OSError, match="Expected Beam to finish.*on the worker"):
        beam.BeamRunner("DirectRunner").map(
            print, [1], folder=tmp_path, load=load
        )


@installed
def test_shards_that_beam_embedded_are_searched_as_one(toy, tmp_path):
    for number in range(2):
        run(
            toy,
            tmp_path / "shards" / str(number),
            index_shard=f"{number}/2",
            executor=on_beam(),
        )
    whole = Index.open(toy["out"], exact=True)
    parts = Index.open(tmp_path / "shards", exact=True)
    assert parts.manifest.equals(whole.manifest)
    queries = toy_search.unit(4, 9, toy_search.DIMENSION)
    expected, found = whole.search(queries, 18), parts.search(queries, 18)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-6)


@installed
@pytest.mark.own_process
def test_the_command(toy, tmp_path):
    command = [
        *(sys.executable, "-m", "sare_tf.index", "--batch_size=2"),
        *(f"--records={toy['records']}", f"--export={toy['export']}"),
        *(f"--index={tmp_path / 'index'}", "--runner=DirectRunner"),
        *("--", *PROCESSES),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Beam's DirectRunner does 1 tasks" in done.stderr
    assert contents(tmp_path / "index") == contents(toy["out"])


def test_without_beam(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r'pip install "sare_tf\[beam\]"'):
        run(toy, tmp_path / "index", executor=on_beam())


def test_flags_of_beam_need_a_runner():
    with flagsaver.flagsaver():
        rest = flags.FLAGS(
            [
                *("program", "--index=index", "--records=records"),
                *("--export=export", "--", "--direct_num_workers=2"),
            ]
        )
        with pytest.raises(
            ValueError, match="without --runner. Received: .'--"
        ):
            index.main(rest)
