"""Expansion, diffusion and k-reciprocal re-ranking against plain loops."""

import itertools

import numpy as np
import pytest
import toy_search

from sare_tf.landmarks import expansion, neighbour_graph
from sare_tf.landmarks.diffusion import Diffusion
from sare_tf.landmarks.k_reciprocal import KReciprocal


def _clustered(count, dimension=6, clusters=5, seed=0):
    """Unit vectors around a few centres, so that neighbours are reciprocal."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(clusters, dimension))
    vectors = centres[np.arange(count) % clusters]
    vectors = vectors + 0.6 * rng.normal(size=vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def _nearest(query, database, leave_out=()):
    others = [d for d in range(len(database)) if d not in leave_out]
    return sorted(others, key=lambda d: -float(query @ database[d]))


def _expanded(query, database, rows, alpha):
    total = query.astype(np.float64)
    for row in rows:
        cosine = max(float(query @ database[row]), 0.0)
        total = total + cosine**alpha * database[row]
    return total / np.linalg.norm(total)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_expansion(alpha):
    queries, database = _clustered(9, seed=1), _clustered(40, seed=2)
    found = expansion.expand_queries(queries, database, count=7, alpha=alpha)
    for query, expanded in zip(queries, found, strict=True):
        rows = _nearest(query, database)[:7]
        expected = _expanded(query, database, rows, alpha)
        np.testing.assert_allclose(expanded, expected, atol=1e-6)
    # Of what a prior or protocol leaves out, nothing is added.
    allowed = np.arange(40) % 2 == 0
    found = expansion.expand_queries(
        queries, database, count=7, alpha=alpha, allowed=allowed
    )
    rows = _nearest(queries[0], database, np.flatnonzero(~allowed))[:7]
    expected = _expanded(queries[0], database, rows, alpha)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_augmentation(alpha, monkeypatch):
    database = _clustered(40, seed=2)
    # A copy, so that an image is not always its own first neighbour.
    database[11] = database[3]
    monkeypatch.setattr(expansion, "_BLOCK", 16)
    found = np.concatenate(
        list(expansion.augment_database(database, count=5, alpha=alpha))
    )
    for row, augmented in enumerate(found):
        rows = _nearest(database[row], database, [row])[:5]
        expected = _expanded(database[row], database, rows, alpha)
        np.testing.assert_allclose(augmented, expected, atol=1e-6)


def test_more_copies_than_neighbours():
    database = np.tile(toy_search.unit(0, 1, 4), (9, 1))
    graph = neighbour_graph.build(database, 3)
    for row, near in enumerate(graph.rows):
        assert row not in near
        assert len(set(near)) == 3
    np.testing.assert_allclose(graph.similarities, 1, atol=1e-6)


def test_more_neighbours_than_images():
    database, queries = _clustered(5), _clustered(2)
    with pytest.raises(ValueError, match="expand_queries of at most 5"):
        expansion.expand_queries(queries, database, count=6, alpha=3)
    with pytest.raises(ValueError, match="augment_database of at most 4"):
        list(expansion.augment_database(database, count=5, alpha=3))
    with pytest.raises(ValueError, match="neighbours of at most 4"):
        neighbour_graph.build(database, 5)


def test_the_graph_equals_a_loop(monkeypatch):
    database = _clustered(30)
    monkeypatch.setattr(neighbour_graph, "_BLOCK", 8)
    graph = neighbour_graph.build(database, 6)
    for row in range(30):
        expected = _nearest(database[row], database, [row])[:6]
        assert graph.rows[row].tolist() == expected
        cosines = database[expected] @ database[row]
        np.testing.assert_allclose(graph.similarities[row], cosines, atol=1e-6)


def _diffused(query, database, top, *, k, start, gamma, alpha):
    """Scores of the first `top` images, by the inverse of a full matrix."""
    count = len(database)
    near = [
        _nearest(database[row], database, [row])[:k] for row in range(count)
    ]
    rows = _nearest(query, database)[:top]
    affinity = np.zeros((top, top))
    for i, j in itertools.product(range(top), repeat=2):
        a, b = rows[i], rows[j]
        if a in near[b] and b in near[a]:
            cosine = float(database[a].astype(float) @ database[b])
            affinity[i, j] = max(cosine, 0) ** gamma
    sums = affinity.sum(axis=1)
    laplacian = np.eye(top)
    for i, j in itertools.product(range(top), repeat=2):
        if affinity[i, j]:
            laplacian[i, j] -= (
                alpha * affinity[i, j] / np.sqrt(sums[i] * sums[j])
            )
    first = np.zeros(top)
    for i in range(start):
        cosine = float(query.astype(float) @ database[rows[i]])
        first[i] = max(cosine, 0) ** gamma
    return rows, np.linalg.solve(laplacian, first)


@pytest.mark.parametrize("top", [40, 17])
def test_diffusion(top):
    queries, database = _clustered(6, seed=1), _clustered(40, seed=2)
    graph = neighbour_graph.build(database, 8)
    # With 0.9, 20 steps of conjugate gradients reach the solution.
    numbers = {"gamma": 3.0, "alpha": 0.9, "start": 4}
    diffusion = Diffusion(graph, **numbers)
    for query in queries:
        rows, expected = _diffused(query, database, top, k=8, **numbers)
        similarities = database[rows].astype(np.float64) @ query
        scores = diffusion(np.array(rows), similarities)
        np.testing.assert_allclose(-scores, expected, rtol=1e-4, atol=1e-6)


def test_an_image_without_mutual_neighbours_keeps_its_own_score():
    vectors = np.eye(4, dtype=np.float32)
    graph = neighbour_graph.Graph(
        np.array([[1], [2], [3], [0]]), np.zeros((4, 1), np.float32)
    )
    scores = Diffusion(graph, gamma=3, alpha=0.99, start=2)(
        np.arange(4), np.array([0.5, 0.2, 0.1, 0.0])
    )
    np.testing.assert_allclose(-scores, [0.125, 0.008, 0, 0], atol=1e-9)
    assert len(vectors) == 4


class _Reciprocal:
    """The definition in the module's docstring, by sets and dictionaries."""

    def __init__(self, database, k1, k2):
        self.database, self.k1, self.k2 = database, k1, k2
        self.count = len(database)
        self.near = [
            [row, *_nearest(database[row], database, [row])]
            for row in range(self.count)
        ]
        self.codes = [self.code(row) for row in range(self.count)]

    def reciprocal(self, row, k):
        return {
            other
            for other in self.near[row][: k + 1]
            if row in self.near[other][: k + 1]
        }

    def grown(self, members):
        half = int(np.around(self.k1 / 2))
        grown = set(members)
        for member in members:
            of_member = self.reciprocal(member, half)
            if len(of_member & members) > 2 / 3 * len(of_member):
                grown |= of_member
        return grown

    def weights(self, vector, support):
        values = {
            row: np.exp(float(vector.astype(float) @ self.database[row]) - 1)
            for row in support
        }
        total = sum(values.values())
        return {row: value / total for row, value in values.items()}

    def code(self, row):
        support = self.grown(self.reciprocal(row, self.k1))
        return self.weights(self.database[row], support)

    def mean(self, codes):
        total = {}
        for code in codes:
            for row, value in code.items():
                total[row] = total.get(row, 0) + value / self.k2
        return total

    def distances(self, query, top, share):
        rows = _nearest(query, self.database)
        members = set()
        for row in rows[: self.k1]:
            # The query takes the place of the k1-th neighbour, or a nearer one.
            last = self.near[row][self.k1]
            own = float(query.astype(float) @ self.database[row])
            others = self.database[last].astype(float) @ self.database[row]
            if own >= float(others):
                members.add(row)
        code = self.weights(query, self.grown(members))
        near = [self.codes[row] for row in rows[: self.k2 - 1]]
        code = self.mean([code, *near])
        found = []
        for row in rows[:top]:
            other = self.mean(
                [self.codes[i] for i in self.near[row][: self.k2]]
            )
            both = set(code) | set(other)
            smaller = sum(min(code.get(i, 0), other.get(i, 0)) for i in both)
            larger = sum(max(code.get(i, 0), other.get(i, 0)) for i in both)
            cosine = float(query.astype(float) @ self.database[row])
            found.append(
                (1 - share) * (1 - smaller / larger) + share * (1 - cosine)
            )
        return rows[:top], found


@pytest.mark.parametrize(("k1", "k2"), [(8, 3), (5, 1), (12, 6)])
def test_k_reciprocal(k1, k2):
    queries, database = _clustered(6, seed=1), _clustered(50, seed=2)
    graph = neighbour_graph.build(database, max(k1, k2))
    reciprocal = KReciprocal(graph, database, k1=k1, k2=k2, share=0.3)
    expected = _Reciprocal(database, k1, k2)
    grown = 0
    for query in queries:
        rows, distances = expected.distances(query, 20, 0.3)
        similarities = database[rows].astype(np.float64) @ query
        found = reciprocal(query, np.array(rows), similarities)
        np.testing.assert_allclose(found, distances, atol=1e-5)
        grown += rows != [rows[i] for i in np.argsort(found, kind="stable")]
    assert grown > 2
    if k1 > 5:
        # Some members' neighbours were added.
        sizes = [len(expected.reciprocal(row, k1)) for row in range(50)]
        assert sum(map(len, expected.codes)) > sum(sizes)


def test_a_query_that_nobody_knows_keeps_the_order():
    """No image has it among its nearest ones."""
    database = _clustered(30, dimension=8)
    query = -database.mean(axis=0)
    query = (query / np.linalg.norm(query)).astype(np.float32)
    rows = np.array(_nearest(query, database))
    reciprocal = KReciprocal(
        neighbour_graph.build(database, 5), database, k1=5, k2=1, share=0.3
    )
    found = reciprocal(query, rows, database[rows].astype(float) @ query)
    assert (np.diff(found) >= -1e-9).all()
