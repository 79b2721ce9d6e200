"""Records built by Apache Beam against those built without; an extra."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import toy_training
from absl import flags
from absl.testing import flagsaver

from sare_tf import build_records
from sare_tf.dataset import tuple_lists
from sare_tf.distributed import beam
from sare_tf.records import image_preparation, shard_building, tuple_building
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records

installed = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason="without Apache Beam: make test-extras",
)
# Beam's own, of its dependencies and of threads that outlive a pipeline.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
THREADS = ["--direct_num_workers=3", "--direct_running_mode=multi_threading"]
# The way to a cluster: submitted over gRPC to a job service, here Beam's own.
PORTABLE = ["--job_endpoint=embed", "--environment_type=LOOPBACK"]
PROCESSES = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Photographs in 6 shards, one of them unreadable, and their records."""
    root = tmp_path_factory.mktemp("data")
    toy_training.records(root, places=4)
    (root / "photos/train/database/p0/bad.jpg").write_bytes(b"no image")
    build(root, root / "records")
    return root


def build(root, out, *, executor=None, **options):
    return build_records.run(
        RecordOptions(
            dataset=root / "photos",
            reader="place_folders",
            records=out,
            **options,
        ),
        executor=executor,
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def on_beam(*beam_flags, runner="DirectRunner"):
    return beam.BeamRunner(runner, beam_flags)


@installed
@pytest.mark.parametrize(
    ("runner", "beam_flags"),
    [
        ("DirectRunner", []),
        ("DirectRunner", THREADS),
        ("PortableRunner", PORTABLE),
    ],
    ids=["one", "threads", "portable"],
)
def test_the_bytes_are_those_without_beam(root, tmp_path, runner, beam_flags):
    build(
        root,
        tmp_path / "records",
        executor=on_beam(*beam_flags, runner=runner),
    )
    found, expected = contents(tmp_path / "records"), contents(root / "records")
    assert found == expected
    assert len([name for name in found if name.endswith(".tfrecord")]) == 6
    assert b"bad.jpg" in found["rejected.csv"]
    assert [path.name for path in tmp_path.iterdir()] == ["records"]


@installed
@pytest.mark.own_process
def test_processes_by_the_command(root, tmp_path):
    command = [
        *(sys.executable, "-m", "sare_tf.build_records"),
        *(f"--dataset={root / 'photos'}", "--reader=place_folders"),
        *(f"--records={tmp_path / 'records'}", "--runner=DirectRunner"),
        *("--", *PROCESSES),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "records") == contents(root / "records")


@installed
def test_tuples(root, tmp_path):
    source = Records(root / "records")
    rows = source.manifest[source.manifest["split"] == "train"]
    rng = np.random.default_rng(0)
    positions = [rng.permutation(len(rows))[:5] for _ in range(400)]
    tuple_lists.write(
        tuple_lists.make(np.array(positions), rows), tmp_path / "l.parquet"
    )
    options = {"records": root / "records", "shard_mebibytes": 1}
    options |= {"tuple_list": tmp_path / "l.parquet"}
    tuple_building.build(out=tmp_path / "here", **options)
    tuple_building.build(
        out=tmp_path / "beam", executor=on_beam(*THREADS), **options
    )
    found = contents(tmp_path / "beam")
    assert found == contents(tmp_path / "here")
    assert len(found) == 2 + 2


@installed
def test_a_shard_that_fails_leaves_the_others(root, tmp_path, monkeypatch):
    """The next run builds that one alone."""
    real, built = shard_building.build, []

    def build_but_one(shard, **options):
        if shard.name.startswith("val-query"):
            raise image_preparation.Unsteady("Expected images that stay.")
        return real(shard, **options)

    def listening(shard, **options):
        built.append(shard.name)
        return real(shard, **options)

    monkeypatch.setattr(shard_building, "build", build_but_one)
    with pytest.raises(OSError, match=r"that stay. \(and 0 other tasks of 6"):
        build(root, tmp_path / "records", executor=on_beam())
    assert not (tmp_path / "records").exists()
    monkeypatch.setattr(shard_building, "build", listening)
    build(root, tmp_path / "records")
    assert built == ["val-query-00000-of-00001.tfrecord"]
    assert contents(tmp_path / "records") == contents(root / "records")


@installed
def test_a_runner_that_fails(root, tmp_path, monkeypatch):
    with pytest.raises(OSError, match=r"runner='NoRunner' \(ValueError"):
        build(
            root,
            tmp_path / "records",
            executor=on_beam(runner="NoRunner"),
        )

    def die(*_, **__):
        raise RuntimeError("worker lost")

    monkeypatch.setattr(shard_building, "build", die)
    with pytest.raises(OSError, match="Expected Beam to finish.*worker lost"):
        build(root, tmp_path / "records", executor=on_beam())


def test_without_beam(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r'pip install "sare_tf\[beam\]"'):
        build(root, tmp_path / "records", executor=on_beam())


def test_flags_of_beam_need_a_runner(root, tmp_path):
    with flagsaver.flagsaver():
        rest = flags.FLAGS(
            [
                "program",
                f"--dataset={root / 'photos'}",
                f"--records={tmp_path / 'records'}",
                "--",
                "--direct_num_workers=2",
            ]
        )
        with pytest.raises(
            ValueError, match="without --runner. Received: .'--"
        ):
            build_records.main(rest)
