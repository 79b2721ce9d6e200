"""Two workers train as one process, and notice when one is lost."""

import time

import pytest
import toy_training
import toy_workers

from sare_tf import train
from sare_tf.checkpoints import read_state

pytestmark = pytest.mark.own_process
TUPLES = toy_workers.OPTIONS


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return str(toy_training.records(tmp_path_factory.mktemp("data")))


def test_two_workers_end_as_one_though_one_was_killed(records, tmp_path):
    """Worker 1 is killed before dataset 4: in epoch 2, after its mining.

    The chief ends with an error, its checkpoint is that of epoch 1; started
    again, the two go on from there.
    """
    run = {"records": records, **TUPLES}
    by_one = train.run(checkpoints=tmp_path / "one", **run)
    run |= {"checkpoints": str(tmp_path / "two"), "strategy": "multi_worker"}
    chief, killed = toy_workers.start(2, **run, killed_at=[None, 4])
    killed.communicate(timeout=240)
    begin = time.monotonic()
    output, _ = chief.communicate(timeout=120)
    assert chief.returncode == 1
    assert time.monotonic() - begin < 100
    assert "Expected all workers to stay to the end." in output
    assert "Start all of them again" in output
    assert read_state(run["checkpoints"])[1]["last"] == "epoch-0001"
    toy_workers.finish(*toy_workers.start(2, **run))
    toy_workers.assert_same_training(by_one, run["checkpoints"])


def test_two_workers_of_two_replicas_train_on_places_as_one(records, tmp_path):
    """A batch of 8 images: 2 of each replica, one at a time."""
    run = {
        "records": records,
        **TUPLES,
        "loss": "place_sare_joint",
        "places_per_batch": 2,
        "images_per_place": 4,
        "memory_images": 12,
        "memory_after_steps": 1,
    }
    by_one = train.run(checkpoints=tmp_path / "one", **run)
    run |= {"checkpoints": str(tmp_path / "four"), "strategy": "multi_worker"}
    toy_workers.finish(*toy_workers.start(2, **run, chunk_images=1, cpus=2))
    toy_workers.assert_same_training(by_one, run["checkpoints"])


def test_a_worker_whose_others_do_not_come_ends(tmp_path):
    run = {"records": "nowhere", "checkpoints": str(tmp_path / "checkpoints")}
    run |= {"strategy": "multi_worker", "start_s": 1}
    with toy_workers.free_port() as port:
        (process,) = toy_workers.start(1, others=[port], **run)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Expected all workers of TF_CONFIG within 1 s." in output
    assert f"no answer from ['localhost:{port}']" in output


def test_workers_that_were_started_otherwise_are_refused(records, tmp_path):
    run = {"records": records, "checkpoints": str(tmp_path / "checkpoints")}
    run |= {"strategy": "multi_worker", **TUPLES, "seed": [0, 1]}
    for process in toy_workers.start(2, **run):
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 1
        assert "Expected all workers to have the same flags" in output
        assert "[1] with others than the chief" in output
