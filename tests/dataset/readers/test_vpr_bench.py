import os

import numpy as np
import pytest
from toy_folders import column, touch, triples

from sare_tf.dataset import readers


def make(root, truth, *, names=("{:07d}.jpg", "{:07d}.png")):
    touch(root, *("query/" + names[0].format(n) for n in range(2)))
    touch(root, *("ref/" + names[1].format(n) for n in range(4)))
    np.save(root / "ground_truth_new.npy", truth)
    return root


def ragged(*answers):
    truth = np.empty((len(answers), 2), object)
    for query, some in enumerate(answers):
        truth[query] = query, some
    return truth


@pytest.mark.parametrize(
    "answers",
    [
        ([1, 0], [3]),
        (np.array([0.0, 1.0]), 3),
        (range(2), [3, 3]),
    ],
)
def test_lists_of_matches(tmp_path, answers):
    found = readers.read(make(tmp_path, ragged(*answers)), reader="vpr_bench")
    assert triples(found) == [
        ("query/0000000.jpg", "ref/0000000.png", "positive"),
        ("query/0000000.jpg", "ref/0000001.png", "positive"),
        ("query/0000001.jpg", "ref/0000003.png", "positive"),
    ]
    assert column(found, "role")["ref/0000002.png"] == "database"
    assert column(found, "frame")["ref/0000002.png"] == 2


def test_one_match_each(tmp_path):
    """Plain numbers, without a pickle."""
    truth = np.array([[0, 2], [1, 3]])
    found = readers.read(make(tmp_path, truth), reader="vpr_bench")
    assert [pair[1] for pair in triples(found)] == [
        "ref/0000002.png",
        "ref/0000003.png",
    ]


def test_other_names_count_in_order(tmp_path):
    names = ("b{}.jpg", "r{}.jpg")
    root = make(tmp_path, ragged([2], []), names=names)
    found = readers.read(root, reader="vpr_bench")
    assert triples(found) == [("query/b0.jpg", "ref/r2.jpg", "positive")]


@pytest.mark.parametrize(
    "truth",
    [ragged([4], [0]), ragged(["x"], [0]), np.array([1, 2]), np.zeros((2, 3))],
)
def test_a_ground_truth_at_odds(tmp_path, truth):
    with pytest.raises(ValueError, match="Expected pairs of the number"):
        readers.read(make(tmp_path, truth), reader="vpr_bench")


class _Evil:
    def __reduce__(self):
        return os.system, ("touch MARK",)


def test_a_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = make(tmp_path, ragged([0], _Evil()))
    with pytest.raises(ValueError, match="it names posix.system"):
        readers.read(root, reader="vpr_bench")
    assert not (tmp_path / "MARK").exists()


def test_no_ground_truth(tmp_path):
    root = make(tmp_path, ragged([0], [1]))
    (root / "ground_truth_new.npy").unlink()
    with pytest.raises(ValueError, match="No such file"):
        readers.read(root, reader="vpr_bench")
