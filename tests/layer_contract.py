"""What every aggregation must do, whatever it computes.

Each check takes `make`, which makes the layer with fixed weights for feature
maps of 5 channels and passes options on to it; `oracle`, which computes the
descriptor of one feature map, [H, W, 5], in plain numpy; and a folder.
"""

import keras
import numpy as np
import pytest
from keras import ops


def feature_maps(height=6, width=9, *, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, height, width, 5)).astype(np.float32)


def numpy(x):
    return ops.convert_to_numpy(x)


def over_unknown_sizes(layer):
    maps = keras.Input((None, None, 5))
    return keras.Model(maps, layer(maps))


def eager_and_graph_follow_the_oracle_at_every_size(make, oracle, folder):
    del folder
    for eager in (False, True):
        model = over_unknown_sizes(make())
        model.compile(run_eagerly=eager)
        for batch, size in ((1, (4, 4)), (3, (6, 9)), (2, (9, 6))):
            features = feature_maps(*size, batch=batch, seed=3)
            expected = np.stack([oracle(image) for image in features])
            assert model.output_shape == (None, expected.shape[1])
            found = model.predict(features, verbose=0)
            np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def mixed_precision_gives_float32(make, oracle, folder):
    del folder
    layer = make(dtype="mixed_bfloat16")
    assert {weight.dtype for weight in layer.weights} <= {"float32"}
    rounded = ops.cast(ops.convert_to_tensor(feature_maps()), "bfloat16")
    found = layer(rounded)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    symbolic = layer(keras.KerasTensor((None, 6, 9, 5), dtype="bfloat16"))
    assert symbolic.dtype == "float32"
    assert symbolic.shape == (None, found.shape[1])
    exact = numpy(ops.cast(rounded, "float32"))
    expected = [oracle(image) for image in exact]
    np.testing.assert_allclose(numpy(found), expected, atol=2e-6, rtol=0)


def configuration_and_file_come_back(make, oracle, folder):
    del oracle
    layer = make(name="aggregate")
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    model = over_unknown_sizes(layer)
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras")
    assert loaded.get_layer("aggregate").get_config() == layer.get_config()
    features = feature_maps()
    np.testing.assert_array_equal(
        numpy(loaded(features)), numpy(model(features))
    )


def empty_batches_stay_empty(make, oracle, folder):
    del folder
    # In a graph: Keras on TensorFlow refuses the maximum of nothing where it
    # runs eagerly.
    dimension = oracle(feature_maps()[0]).size
    model = over_unknown_sizes(make())
    found = model.predict_on_batch(feature_maps(batch=0))
    assert found.shape == (0, dimension)


def features_of_zero_are_finite(make, oracle, folder):
    del oracle, folder
    assert np.isfinite(numpy(make()(np.zeros((1, 4, 6, 5), "float32")))).all()


def another_rank_is_refused(make, oracle, folder):
    del oracle, folder
    layer = make()
    for features in (np.ones((2, 7, 5), "float32"), keras.Input((7, 5))):
        with pytest.raises(ValueError, match="expected ndim=4, found ndim=3"):
            layer(features)


CHECKS = (
    eager_and_graph_follow_the_oracle_at_every_size,
    mixed_precision_gives_float32,
    configuration_and_file_come_back,
    empty_batches_stay_empty,
    features_of_zero_are_finite,
    another_rank_is_refused,
)
