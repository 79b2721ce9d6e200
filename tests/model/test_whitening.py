"""Whitening against its formula by singular values, and scikit-learn."""

import keras
import numpy as np
import pytest
from keras import ops

from sare_tf.model import Whitening, whitening

# Fewer samples than elements, and more.
SHAPES = {"dual": (60, 90), "primal": (200, 40)}


def samples(count, length, *, seed=0):
    """Correlated, with a mean, of unit length."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(length, length)) * 0.9 ** np.arange(length)
    values = rng.normal(size=(count, length)) @ mixing.T + 3
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values.astype(np.float32)


def oracle(descriptors, dimension):
    """Projection and mean, by the singular values of the centred samples."""
    descriptors = np.float64(descriptors)
    mean = descriptors.mean(axis=0)
    _, singular, directions = np.linalg.svd(
        descriptors - mean, full_matrices=False
    )
    projection = []
    for value, direction in zip(singular, directions, strict=True):
        variance = value**2 / (len(descriptors) - 1)
        if direction[np.abs(direction).argmax()] < 0:
            direction = -direction
        projection.append(direction / np.sqrt(variance + 1e-9))
    return np.stack(projection[:dimension], axis=1), mean


def whitened(descriptor, projection, mean):
    """y = W^T x - W^T mean, then unit length, element by element."""
    y = np.array(
        [
            sum(w * x for w, x in zip(column, descriptor, strict=True))
            - sum(w * m for w, m in zip(column, mean, strict=True))
            for column in projection.T
        ]
    )
    return y / np.sqrt(np.sum(y * y) + 1e-12)


def numpy(x):
    return ops.convert_to_numpy(x)


def layer_of(fitted, **options):
    layer = Whitening(fitted.projection.shape[1], **options)
    layer.assign(fitted)
    return layer


def test_numbers_made_by_hand():
    # Variances 18 / 3 and 2 / 3 about the mean (10, 20); so (11, 21) becomes
    # (1 / sqrt 6, 1 / sqrt(2 / 3)) = (1, 3) / sqrt 6, of unit length
    # (1, 3) / sqrt 10.
    descriptors = [(13.0, 20.0), (7.0, 20.0), (10.0, 21.0), (10.0, 19.0)]
    fitted = whitening.fit(np.array(descriptors), 2)
    np.testing.assert_allclose(fitted.mean, [10, 20])
    np.testing.assert_allclose(fitted.eigenvalues, [6, 2 / 3], rtol=1e-12)
    expected = np.diag([0.408248, 1.224745])
    np.testing.assert_allclose(fitted.projection, expected, atol=1e-6)
    np.testing.assert_allclose(fitted.bias, [-4.08248, -24.4949], atol=1e-4)
    assert fitted.explained_variance == pytest.approx(1)
    assert fitted.samples == 4
    found = numpy(layer_of(fitted)(np.array([[11.0, 21.0]])))
    np.testing.assert_allclose(found, [[0.316228, 0.948683]], atol=1e-5)
    first = whitening.fit(np.array(descriptors), 1)
    assert first.explained_variance == pytest.approx(0.9)  # 6 of 6 + 2 / 3


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dimension", [1, 7, 39])
def test_equals_the_formula(shape, dimension):
    descriptors = samples(*shape)
    fitted = whitening.fit(descriptors, dimension)
    projection, mean = oracle(descriptors, dimension)
    assert fitted.projection.dtype == fitted.bias.dtype == np.float32
    scale = np.abs(projection).max(axis=0)
    np.testing.assert_allclose(
        fitted.projection / scale, projection / scale, atol=1e-6
    )
    np.testing.assert_allclose(fitted.mean, mean, atol=1e-12)
    others = samples(5, shape[1], seed=1)
    found = numpy(layer_of(fitted)(others))
    expected = [whitened(x, projection, mean) for x in others]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_scikit_learn_up_to_sign_and_scale(shape):
    from sklearn.decomposition import PCA

    descriptors = samples(*shape)
    fitted = whitening.fit(descriptors, 12)
    pca = PCA(12, whiten=True, svd_solver="full").fit(np.float64(descriptors))
    found = descriptors @ fitted.projection + fitted.bias
    expected = pca.transform(descriptors)
    sign = np.sign((found * expected).sum(axis=0))
    # sklearn adds nothing to the variance.
    scale = np.sqrt(1 + 1e-9 / pca.explained_variance_)
    np.testing.assert_allclose(found * sign * scale, expected, atol=1e-5)
    np.testing.assert_allclose(
        fitted.eigenvalues, pca.explained_variance_, rtol=1e-9
    )
    assert fitted.explained_variance == pytest.approx(
        pca.explained_variance_ratio_.sum()
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_whitened_samples_have_equal_variance(shape):
    descriptors = samples(*shape)
    fitted = whitening.fit(descriptors, 20)
    found = np.float64(descriptors) @ fitted.projection + fitted.bias
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
    # Less than 1 by the epsilon: the variance over itself plus 1e-9.
    expected = fitted.eigenvalues / (fitted.eigenvalues + 1e-9)
    np.testing.assert_allclose(np.cov(found.T), np.diag(expected), atol=1e-5)


@pytest.mark.parametrize("count", [4, 30])
def test_small_eigenvalues_where_the_epsilon_counts(count, caplog):
    # Orthogonal directions with these variances. In the dual form a vector is
    # X^T u / sqrt(max(variance, 1e-9) (M - 1)), of length
    # sqrt(variance / max(variance, 1e-9)); in the primal one of length 1.
    variances = np.array([1e-2, 4e-9, 2.5e-10])
    rng = np.random.default_rng(0)
    scores = np.linalg.qr(rng.normal(size=(count, 3)) - 0.1)[0]
    scores = np.linalg.qr(scores - scores.mean(axis=0))[0]
    directions = np.linalg.qr(rng.normal(size=(9, 3)))[0]
    descriptors = scores * np.sqrt(variances * (count - 1)) @ directions.T
    fitted = whitening.fit(descriptors, 3)
    np.testing.assert_allclose(fitted.eigenvalues, variances, rtol=1e-5)
    lengths = np.linalg.norm(fitted.projection, axis=0)
    vectors = [1, 1, 0.5 if count < 9 else 1]
    expected = vectors / np.sqrt([1.0000001e-2, 5e-9, 1.25e-9])
    np.testing.assert_allclose(lengths, expected, rtol=1e-5)
    assert "1 of 3 eigenvalues are at most 1e-09" in caplog.text


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_fewer_dimensions_are_the_first_of_more(shape):
    descriptors = samples(*shape)
    more = numpy(layer_of(whitening.fit(descriptors, 20))(descriptors))
    cut = more[:, :6]
    cut /= np.linalg.norm(cut, axis=1, keepdims=True)
    fewer = numpy(layer_of(whitening.fit(descriptors, 6))(descriptors))
    np.testing.assert_allclose(fewer, cut, atol=1e-5)


@pytest.mark.parametrize("shape", [(70, 5000), (6000, 60)])
def test_blocks_and_a_memory_map_change_nothing(shape, tmp_path):
    descriptors = samples(*shape)
    assert descriptors.nbytes > 1 << 20  # several blocks of a mebibyte
    path = tmp_path / "descriptors.npy"
    np.save(path, descriptors)
    mapped = np.load(path, mmap_mode="r")
    whole = whitening.fit(descriptors, 5)
    blocks = whitening.fit(mapped, 5, block_mebibytes=1)
    np.testing.assert_allclose(blocks.mean, whole.mean, atol=1e-12)
    scale = np.abs(whole.projection).max()
    np.testing.assert_allclose(
        blocks.projection / scale, whole.projection / scale, atol=1e-6
    )
    np.testing.assert_allclose(blocks.eigenvalues, whole.eigenvalues, rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_signs_are_those_of_the_largest_elements(shape):
    descriptors = samples(*shape)
    projection = whitening.fit(descriptors, 9).projection
    for column in projection.T:
        assert column[np.abs(column).argmax()] > 0
    mirrored = whitening.fit(-descriptors, 9).projection
    np.testing.assert_allclose(mirrored, projection, atol=1e-6)


def test_dimensions_without_variance_are_counted(caplog):
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(30, 3)) @ rng.normal(size=(3, 50))
    fitted = whitening.fit(flat, 7)
    assert "4 of 7 eigenvalues" in caplog.text
    assert "30 samples vary in 3 dimensions" in caplog.text
    assert np.isfinite(fitted.projection).all()
    assert (fitted.eigenvalues >= 0).all()
    assert fitted.explained_variance == pytest.approx(1)


@pytest.mark.parametrize(
    ("descriptors", "dimension", "message"),
    [
        (np.ones(4), 1, r"\[M, D\].*shape=\(4,\)"),
        (np.eye(9, 4), 5, "from 1 to 4, .*dimension=5"),
        (np.eye(9, 4), 0, "from 1 to 4, .*dimension=0"),
        (np.eye(4, 9), 4, "at least 5 samples .* 4 samples.* at most 3"),
        (np.full((9, 4), np.nan), 2, "finite.*in 9 of the 9 samples"),
        (np.full((3, 8), np.inf), 2, "finite.*in 3 of the 3 samples"),
        (np.ones((9, 4)), 2, "that differ.* 9 samples"),
    ],
)
def test_descriptors_that_cannot_be_whitened(descriptors, dimension, message):
    with pytest.raises(ValueError, match=message):
        whitening.fit(descriptors, dimension)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="positive dimension.*dimension=0"):
        Whitening(0)
    with pytest.raises(ValueError, match=r"known D.*\(None, None\)"):
        Whitening(3).build((None, None))
    layer = Whitening(3)
    layer.build((None, 40))
    fitted = whitening.fit(samples(*SHAPES["primal"]), 4)
    with pytest.raises(ValueError, match=r"\(40, 3\).*\(40, 4\)"):
        layer.assign(fitted)


@pytest.mark.parametrize("eager", [False, True])
def test_in_a_model_saved_and_loaded(tmp_path, eager):
    descriptors = samples(*SHAPES["dual"])
    fitted = whitening.fit(descriptors, 4)
    projection, mean = oracle(descriptors, 4)
    inputs = keras.Input((90,))
    model = keras.Model(inputs, layer_of(fitted, name="whitening")(inputs))
    assert model.output_shape == (None, 4)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_layer("whitening").dimension == 4
    for batch in (descriptors[:1], descriptors[:5]):
        expected = [whitened(x, projection, mean) for x in batch]
        for one in (model, again):
            one.compile(run_eagerly=eager)
            np.testing.assert_allclose(
                one.predict(batch, verbose=0), expected, atol=2e-6
            )


def test_sums_are_float32_under_mixed_precision():
    descriptors = samples(*SHAPES["dual"])
    fitted = whitening.fit(descriptors, 4)
    layer = layer_of(fitted, dtype="mixed_bfloat16")
    rounded = ops.cast(ops.convert_to_tensor(descriptors[:3]), "bfloat16")
    found = layer(rounded)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert layer.projection.dtype == layer.bias.dtype == "float32"
    symbolic = layer(keras.KerasTensor((None, 90), dtype="bfloat16"))
    assert symbolic.dtype == "float32"
    assert symbolic.shape == (None, 4)
    projection, mean = oracle(descriptors, 4)
    exact = numpy(ops.cast(rounded, "float32"))
    expected = [whitened(x, projection, mean) for x in exact]
    np.testing.assert_allclose(numpy(found), expected, atol=1e-5)


def test_a_descriptor_at_the_mean_is_finite():
    descriptors = samples(*SHAPES["primal"])
    fitted = whitening.fit(descriptors, 4)
    at_mean = numpy(layer_of(fitted)(fitted.mean[None].astype(np.float32)))
    assert np.isfinite(at_mean).all()
