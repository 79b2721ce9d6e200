"""Whitening learned from pairs against its formula, one pair at a time."""

import numpy as np
import pytest
import toy_search

from sare_tf.model import learned_whitening, whitening


def _pairs(seed=0, images=40, length=6):
    """Descriptors of images in pairs, which differ mostly in the first one."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(images // 2, length))
    noise = 0.1 * rng.normal(size=(images, length))
    noise[:, 0] *= 8
    descriptors = np.repeat(places, 2, axis=0) + noise
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    pairs = np.arange(images).reshape(-1, 2)
    return descriptors.astype(np.float32), pairs


def _by_formula(descriptors, pairs, dimension):
    """P and m as whitenlearn finds them, up to signs."""
    descriptors = descriptors.astype(np.float64)
    mean = sum(descriptors[a] for a, _ in pairs) / len(pairs)
    scatter = np.zeros((descriptors.shape[1],) * 2)
    for a, b in pairs:
        difference = descriptors[a] - descriptors[b]
        scatter += np.outer(difference, difference) / len(pairs)
    inverse = np.linalg.inv(np.linalg.cholesky(scatter))
    total = np.zeros_like(scatter)
    for descriptor in descriptors:
        moved = inverse @ (descriptor - mean)
        total += np.outer(moved, moved)
    values, vectors = np.linalg.eigh(total)
    order = np.argsort(values)[::-1][:dimension]
    return mean, vectors[:, order].T @ inverse, values[order]


@pytest.mark.parametrize("dimension", [6, 3])
def test_it_is_the_formula(dimension):
    descriptors, pairs = _pairs()
    fitted = learned_whitening.fit_pairs(descriptors, pairs, dimension)
    mean, projection, values = _by_formula(descriptors, pairs, dimension)
    np.testing.assert_allclose(fitted.mean, mean, atol=1e-7)
    np.testing.assert_allclose(fitted.eigenvalues, values / 40, rtol=1e-5)
    for found, expected in zip(fitted.projection.T, projection, strict=True):
        sign = np.sign(found @ expected)
        np.testing.assert_allclose(found, sign * expected, rtol=1e-3, atol=1e-4)
        assert found[np.abs(found).argmax()] > 0
    moved = (descriptors - mean) @ projection.T
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    whitened = np.asarray(
        whitening.whiten(descriptors, fitted.projection, fitted.bias)
    )
    np.testing.assert_allclose(
        whitened @ whitened.T, moved @ moved.T, atol=1e-4
    )


def test_right_pairs_are_nearer_than_after_whitening_by_variance():
    descriptors, pairs = _pairs(1, images=60)
    others, other_pairs = _pairs(2, images=60)

    def recall(fitted):
        moved = np.asarray(
            whitening.whiten(others, fitted.projection, fitted.bias)
        )
        queries, database = moved[other_pairs[:, 0]], moved[other_pairs[:, 1]]
        return ((queries @ database.T).argmax(axis=1) == np.arange(30)).mean()

    learned = recall(learned_whitening.fit_pairs(descriptors, pairs, 5))
    assert learned > recall(whitening.fit(descriptors, 5)) + 0.05


def test_a_singular_scatter_gets_a_larger_diagonal():
    descriptors, _ = _pairs()
    fitted = learned_whitening.fit_pairs(descriptors, np.array([[0, 1]]), 3)
    assert np.isfinite(fitted.projection).all()


@pytest.mark.parametrize(
    ("pairs", "dimension", "message"),
    [
        (np.zeros((0, 2), int), 2, "at least one.*shape \\(0, 2\\)"),
        (np.array([[0, 40]]), 2, "of rows below 40"),
        (np.array([0, 1]), 2, "shape \\(2,\\)"),
        (np.array([[0, 1]]), 7, "a dimension from 1 to 6"),
    ],
)
def test_what_cannot_be_fitted(pairs, dimension, message):
    with pytest.raises(ValueError, match=message):
        learned_whitening.fit_pairs(_pairs()[0], pairs, dimension)


def test_descriptors_that_are_not_finite():
    descriptors = toy_search.unit(0, 8, 3)
    descriptors[5, 1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        learned_whitening.fit_pairs(descriptors, np.array([[0, 1]]), 2)
