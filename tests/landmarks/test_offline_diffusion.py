"""Columns of diffusion against dense solutions, and beside an index."""

import numpy as np
import pytest
import toy_index

from sare_tf import evaluate, index
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.landmarks import neighbour_graph, offline_diffusion
from sare_tf.landmarks.offline_diffusion import Columns, OfflineDiffusion
from sare_tf.search import index_changes
from sare_tf.search.landmark_options import DIFFUSION
from sare_tf.search.opened_index import Index
from sare_tf.search.options import IndexOptions

# With alpha 0.9, 20 steps of conjugate gradients reach the solution.
ALPHA, GAMMA, START, NEIGHBOURS = 0.9, 3.0, 4, 8


def _clustered(count, seed):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(5, 6))
    vectors = centres[np.arange(count) % 5]
    vectors = vectors + 0.6 * rng.normal(size=vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def _laplacian(database):
    """I - alpha D^-1/2 A D^-1/2 of the whole database, by loops."""
    count = len(database)
    cosines = database.astype(float) @ database.astype(float).T
    near = [
        [j for j in np.argsort(-cosines[i]) if j != i][:NEIGHBOURS]
        for i in range(count)
    ]
    affinity = np.zeros((count, count))
    for i in range(count):
        for j in near[i]:
            if i in near[j]:
                affinity[i, j] = max(cosines[i, j], 0) ** GAMMA
    sums = affinity.sum(axis=1)
    laplacian = np.eye(count)
    for i, j in zip(*np.nonzero(affinity), strict=True):
        laplacian[i, j] -= ALPHA * affinity[i, j] / np.sqrt(sums[i] * sums[j])
    return laplacian


def _columns(database, size):
    shape = (len(database), size)
    columns = Columns(np.empty(shape, np.int32), np.empty(shape, np.float32))
    offline_diffusion.fill(
        columns,
        database,
        neighbour_graph.build(database, NEIGHBOURS),
        gamma=GAMMA,
        alpha=ALPHA,
    )
    return columns


def _started(query, database, rows):
    first = np.zeros(len(database))
    for row in rows[:START]:
        first[row] = max(float(query.astype(float) @ database[row]), 0) ** GAMMA
    return first


def test_whole_columns_are_the_dense_solution(monkeypatch):
    monkeypatch.setattr(offline_diffusion, "_BLOCK", 16)
    database, queries = _clustered(40, seed=2), _clustered(6, seed=1)
    offline = OfflineDiffusion(_columns(database, 40), gamma=GAMMA, start=START)
    changed = 0
    for query in queries:
        similarities = database.astype(float) @ query
        rows = np.argsort(-similarities)
        for top in (40, 17, 2):
            near = rows[:top]
            # Diffusion may start from images that are not ranked anew.
            first = _started(query, database, near)
            expected = np.linalg.solve(_laplacian(database), first)
            scores = offline(near, similarities[near])
            np.testing.assert_allclose(
                -scores, expected[near], rtol=1e-4, atol=1e-6
            )
        order = np.argsort(offline(rows, similarities[rows]), kind="stable")
        changed += (order != np.arange(40)).any()
    assert changed == 6


def test_a_column_is_cut_down_to_the_nearest_images():
    database, (query,) = _clustered(40, seed=2), _clustered(1, seed=3)
    columns = _columns(database, 12)
    laplacian = _laplacian(database)
    expected = np.zeros((40, 40))
    for row in range(40):
        cosines = database.astype(float) @ database[row]
        cosines[row] = 2
        near = np.argsort(-cosines)[:12]
        assert columns.rows[row].tolist() == near.tolist()
        itself = np.eye(12)[0]
        expected[near, row] = np.linalg.solve(
            laplacian[np.ix_(near, near)], itself
        )
        np.testing.assert_allclose(
            columns.scores[row], expected[near, row], rtol=1e-4, atol=1e-6
        )
    similarities = database.astype(float) @ query
    rows = np.argsort(-similarities)[:25]
    scores = OfflineDiffusion(columns, gamma=GAMMA, start=START)(
        rows, similarities[rows]
    )
    summed = expected @ _started(query, database, rows)
    np.testing.assert_allclose(-scores, summed[rows], rtol=1e-4, atol=1e-6)
    assert (summed[rows] == 0).any()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return toy_index.build(tmp_path_factory.mktemp("toy"))


def _inputs(built):
    return {
        "records": built["records"],
        "export": built["export"],
        "index": built["out"],
    }


def test_columns_lie_beside_the_index(built, tmp_path, caplog):
    copied = toy_index.copy(built, tmp_path)
    options = {"graph_neighbours": 3, "batch_size": 4}
    asked = {
        **_inputs(copied),
        "evaluation": tmp_path / "evaluation",
        "baseline_images": 0,
        "recall_at": (1, 3),
        "rerank": "offline_diffusion",
        **options,
    }
    with pytest.raises(ValueError, match="because the index has none. Make t"):
        evaluate.run(EvaluationOptions(**asked))
    build = {**_inputs(copied), **options, "offline_diffusion": 1000}
    index.run(IndexOptions(**build))
    path = copied["out"] / DIFFUSION
    before = path.stat().st_mtime_ns
    index.run(IndexOptions(**build))
    assert path.stat().st_mtime_ns == before
    assert "The columns of diffusion in" in caplog.text
    evaluate.run(EvaluationOptions(**asked))
    page = (tmp_path / "evaluation" / "report.html").read_text()
    assert "offline_diffusion over 20 images" in page
    with pytest.raises(ValueError, match="another --diffusion_alpha. Make"):
        evaluate.run(EvaluationOptions(**asked, diffusion_alpha=0.5))
    opened = Index.open(copied["out"], exact=True)
    columns = offline_diffusion.of_index(opened, EvaluationOptions(**asked))
    assert columns.rows.shape == (18, 18)
    ids = tmp_path / "ids.txt"
    ids.write_text(opened.manifest["image_id"].iloc[0])
    index_changes.remove(index=copied["out"], ids=ids)
    with pytest.raises(ValueError, match="another content of the index"):
        evaluate.run(EvaluationOptions(**asked))
