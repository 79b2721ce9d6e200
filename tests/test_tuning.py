"""Tuning of a tree, checked against exact search."""

import numpy as np
import pytest
import toy_index
from absl import logging

from sare_tf import approximate, retrieval, tuning


@pytest.fixture
def tree(monkeypatch):
    scann = pytest.importorskip("scann")
    monkeypatch.setattr(approximate, "_TREE_FROM", 0)
    descriptors = toy_index.clustered(1, 60, 50, 16)
    parameters = approximate.rules(count=3000, dimension=16)
    searcher = approximate.Searcher.build(scann, descriptors, parameters)
    return searcher, descriptors


def test_the_target_is_reached(tree, monkeypatch):
    searcher, descriptors = tree
    monkeypatch.setattr(tuning, "_PASSES", 1)
    tuned = tuning.tune(searcher, descriptors, target_recall=0.95)
    chosen = tuned["chosen"]
    assert chosen["recall"] >= 0.95
    assert searcher.parameters["num_leaves_to_search"] == chosen["leaves"]
    reordered = searcher.parameters["reordering_num_neighbors"]
    assert reordered == chosen["reordered"]
    # Again in plain steps: all rows as queries, themselves left out.
    found, _ = searcher.search(descriptors, 11)
    products = descriptors @ descriptors.T
    np.fill_diagonal(products, -2)
    recalls = []
    for row in range(len(descriptors)):
        others = [other for other in found[row] if other not in (row, -1)]
        last = np.sort(products[row])[-10]
        recalls.append((products[row][others[:10]] >= last - 1e-6).sum() / 10)
    # A third of the rows were asked: 1,000 of them are off by 0.01 at most.
    assert np.mean(recalls) == pytest.approx(chosen["recall"], abs=0.01)


def test_the_curve_rises_in_recall_and_falls_in_speed(tree):
    searcher, descriptors = tree
    curve = tuning.tune(searcher, descriptors, target_recall=0.9)["curve"]
    recalls = [point["recall"] for point in curve]
    speeds = [point["queries_per_second"] for point in curve]
    assert len(curve) > 1
    assert recalls == sorted(set(recalls))
    assert speeds[0] > speeds[-1]
    text = tuning.table(curve)
    assert len(text.splitlines()) == len(curve) + 1
    assert f"{recalls[-1]:.4f}" in text


def test_a_target_out_of_reach_is_told(tree, monkeypatch):
    searcher, descriptors = tree
    # One leaf of 55 does not hold all neighbours.
    monkeypatch.setattr(tuning, "_steps", lambda num_leaves: [1])
    monkeypatch.setattr(tuning, "_REORDERED", (25,))
    told = []
    monkeypatch.setattr(logging, "warning", lambda *words: told.append(words))
    chosen = tuning.tune(searcher, descriptors, target_recall=1.0)["chosen"]
    assert chosen["recall"] < 1
    assert len(told) == 1


def test_rows_are_not_their_own_neighbours():
    found = np.array([[7, 3, 5], [3, 7, 5], [1, 2, 4]])
    others = tuning._others(found, np.array([7, 7, 9]))
    # 7 is left out wherever it stands; 9 was not found, so the last one is.
    assert others.tolist() == [[3, 5], [3, 5], [1, 2]]


def test_steps_end_with_all_leaves():
    assert tuning._steps(12) == [1, 2, 3, 4, 6, 8, 11, 12]
    assert tuning._steps(1) == [1]


def test_distances_of_no_row_are_infinite():
    rows = np.eye(3, dtype=np.float32)
    distances = tuning._distances(rows[:1], rows, np.array([[0, 2, -1]]))
    assert distances.tolist() == [[0, 2, np.inf]]
    exact = retrieval.nearest(rows[:1], rows, 3)[1]
    # The first two of three were found.
    assert retrieval.recall_of_search(distances, exact) == pytest.approx(2 / 3)
