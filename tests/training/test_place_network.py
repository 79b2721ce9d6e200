"""Batches of places: chunks, memory, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from toy_descriptors import finite_differences

from sare_tf import losses, model
from sare_tf.training import optimizers, run_folder
from sare_tf.training.place_network import PlaceNetwork

BATCH, STEPS, SIZE = 8, 5, 16


def data(seed=0):
    """Images of 4 places a batch, of 12 in all, and where they were taken."""
    rng = np.random.default_rng(seed)
    shape = (STEPS * BATCH, SIZE, SIZE, 3)
    images = rng.integers(0, 256, shape).astype(np.uint8)
    places = [rng.permutation(12)[:4] for _ in range(STEPS)]
    labels = np.repeat(np.concatenate(places), 2).astype(np.int32)
    # On a line, 20 m apart: each has neighbours within 25 m.
    positions = np.stack([20.0 * labels, np.zeros(len(labels))], axis=1)
    return images, labels, positions.astype(np.float32)


def network(*, loss=None, optimizer=None, embedder=None, **settings):
    keras.utils.set_random_seed(0)
    made = PlaceNetwork(
        embedder
        or model.build_embedder(
            backbone="small", aggregation="netvlad", num_clusters=3
        ),
        **settings,
    )
    made.compile(
        optimizer or keras.optimizers.SGD(0.1),
        loss or losses.PlaceSARELoss(inverse_bandwidth=5.0),
    )
    return made


def numpy(variables):
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def train(made, images, targets):
    """The loss of every step: Keras shows the mean up to it."""
    found = []
    for step in range(STEPS):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        batch = keras.tree.map_structure(lambda x, rows=rows: x[rows], targets)
        found.append(made.train_on_batch(images[rows], batch))
    return np.array(found)


def test_it_trains_as_keras_trains_the_embedder():
    images, labels, _ = data()
    made = network()
    keras.utils.set_random_seed(0)
    plain = model.build_embedder(
        backbone="small", aggregation="netvlad", num_clusters=3
    )
    plain.compile(
        keras.optimizers.SGD(0.1), losses.PlaceSARELoss(inverse_bandwidth=5.0)
    )
    for network_ in (made, plain):
        before = numpy(network_.trainable_variables)
        network_.fit(images, labels, batch_size=8, shuffle=False, verbose=0)
        after = numpy(network_.trainable_variables)
        moved = max(
            np.abs(a - b).max() for a, b in zip(before, after, strict=True)
        )
        assert moved > 1e-3
    assert made.evaluate(images[:8], labels[:8], verbose=0) == pytest.approx(
        plain.evaluate(images[:8], labels[:8], verbose=0), abs=1e-6
    )
    for a, b in zip(numpy(made.weights), numpy(plain.weights), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("chunk_images", [0, 4])
def test_with_an_augmentation_it_trains_on_what_that_gives(
    tmp_path, chunk_images
):
    """Beside the plain network on images that were varied before."""
    images, labels, _ = data()
    layer = model.Augmentation(["crop", "colour", "erase"])
    rng = np.random.default_rng(1)
    draws = rng.uniform(size=(len(images), layer.num_draws)).astype("float32")
    varied = keras.ops.convert_to_numpy(layer(images, draws, training=True))
    made = network(augmentation=layer, chunk_images=chunk_images)
    made.save(tmp_path / "network.keras")
    made = keras.saving.load_model(tmp_path / "network.keras")
    plain = network()
    batches = {"images": images, "draws": draws}
    fit = {"batch_size": 8, "shuffle": False, "verbose": 0}
    made.fit(batches, labels, **fit)
    plain.fit(varied, labels, **fit)
    for a, b in zip(numpy(made.weights), numpy(plain.weights), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, rtol=0)
    # Outside training images stay as they are.
    np.testing.assert_allclose(
        made.predict(batches, verbose=0),
        plain.predict(images, verbose=0),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("jit_compile", "chunks"), [(False, (0, 1, 4, 8)), (True, (0, 2))]
)
def test_chunks_have_the_direct_gradient(jit_compile, chunks):
    """Plain SGD: a step is the gradient."""
    images, labels, _ = data()
    weights = []
    for chunk_images in chunks:
        made = network(chunk_images=chunk_images)
        made.jit_compile = jit_compile
        made.fit(images, labels, batch_size=8, shuffle=False, verbose=0)
        weights.append(numpy(made.weights))
    for others in weights[1:]:
        for a, b in zip(weights[0], others, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6, rtol=0)


def test_chunks_of_images_of_any_size():
    """Keras compiles for unknown sizes once it has seen two."""
    for chunk_images in (0, 2):
        made = network(chunk_images=chunk_images)
        for size in (16, 24, 32):
            images = np.full((4, size, size, 3), 100, np.uint8)
            images[:2, : size // 2] = 0
            found = made.train_on_batch(images, np.array([0, 0, 1, 1]))
        if chunk_images == 0:
            expected = found
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def memory_loss(batch, memory, *, separation_m, hardest):
    """SARE, joint and Gaussian, of the definition: plain loops, float64.

    Each image is (label, position, descriptor). Positives and negatives of an
    anchor are in the batch and in the memory; one in the memory of another
    place and too near is neither.
    """
    losses_of_anchors = []
    for a, (label, position, descriptor) in enumerate(batch):
        positives, negatives = [], []
        for b, (other, _, found) in enumerate(batch):
            distance = np.sum((descriptor - found) ** 2)
            if b != a:
                (positives if other == label else negatives).append(distance)
        for other, there, found in memory:
            distance = np.sum((descriptor - found) ** 2)
            if other == label:
                positives.append(distance)
            elif not np.linalg.norm(position - there) <= separation_m:
                negatives.append(distance)
        negatives = sorted(negatives)[: hardest or None]
        repelled = sum(np.exp(-5.0 * d) for d in negatives)
        pairs = [
            -np.log(np.exp(-5.0 * d) / (np.exp(-5.0 * d) + repelled))
            for d in positives
        ]
        losses_of_anchors.append(np.mean(pairs))
    return np.mean(losses_of_anchors)


@pytest.mark.parametrize("known", [True, False], ids=["near", "nowhere"])
@pytest.mark.parametrize("hardest", [0, 3])
def test_memory_follows_the_definition(hardest, known):
    """A memory of 20 images: 2.5 batches, from the third step on."""
    images, labels, positions = data()
    if not known:
        positions[:] = np.nan
    made = network(
        loss=losses.PlaceSARELoss(
            inverse_bandwidth=5.0, hardest_negatives=hardest
        ),
        memory_images=20,
        memory_after_steps=2,
    )
    remembered, expected, found = [], [], []
    for step in range(STEPS):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        embedded = made.predict(images[rows], verbose=0).astype(np.float64)
        batch = list(zip(labels[rows], positions[rows], embedded, strict=True))
        expected.append(
            memory_loss(
                batch,
                remembered if step >= 2 else [],
                separation_m=25.0,
                hardest=hardest,
            )
        )
        made.reset_metrics()
        found.append(
            made.train_on_batch(
                images[rows],
                {"labels": labels[rows], "positions": positions[rows]},
            )
        )
        remembered = (remembered + batch)[-20:]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_nothing_is_learnt_to_the_memory():
    """The gradient by the batch, of the definition, by finite differences."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 4))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels = np.array([0, 0, 1, 1, 0, 1, 2, 2, 3])
    places = np.zeros((9, 2)) + 100.0 * labels[:, None]

    def definition(batch):
        return memory_loss(
            list(zip(labels[:4], places[:4], batch, strict=True)),
            list(zip(labels[4:], places[4:], x[4:], strict=True)),
            separation_m=25.0,
            hardest=2,
        )

    import tensorflow as tf

    loss = losses.PlaceSARELoss(inverse_bandwidth=5.0, hardest_negatives=2)
    whole = tf.Variable(x.astype(np.float32))
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(
            loss.call_with_memory(
                labels[:4].astype(np.float32),
                whole[:4],
                memory=(labels[4:].astype(np.float32), whole[4:]),
                counts=np.ones((4, 5), bool),
            )
        )
    found = tf.convert_to_tensor(tape.gradient(value, whole)).numpy()
    assert not found[4:].any()
    for row, column in np.ndindex(4, 4):
        step = np.zeros((4, 4))
        step[row, column] = 1e-6
        slope = (definition(x[:4] + step) - definition(x[:4] - step)) / 2e-6
        assert found[row, column] == pytest.approx(slope, abs=1e-4)


def test_saved_with_its_memory_and_gone_on_with(tmp_path):
    images, labels, positions = data()
    targets = {"labels": labels, "positions": positions}
    made = network(
        memory_images=20,
        memory_after_steps=2,
        separation_m=30.0,
        chunk_images=2,
    )
    train(made, images, targets)
    made.save(tmp_path / "network.keras")
    again = keras.saving.load_model(tmp_path / "network.keras")
    for name in ("chunk_images", "memory_images", "memory_after_steps"):
        assert again.get_config()[name] == made.get_config()[name]
    assert again.separation_m == 30.0
    assert again.get_layer("embedder").name == "embedder"
    for a, b in zip(
        train(made, images, targets), train(again, images, targets), strict=True
    ):
        assert a == b
    for a, b in zip(numpy(made.weights), numpy(again.weights), strict=True):
        np.testing.assert_array_equal(a, b)


def definition(loss, labels, x, targets):
    """A loss with weights of its own: plain numpy, float64.

    Args:
        loss: name of the loss.
        labels: [B].
        x: descriptors of unit length, [B, D].
        targets: the weights: u of a bandwidth, or directions.
    """
    values = []
    for a, label in enumerate(labels):
        if loss == "cosface":
            logits = (
                x[a]
                @ (targets / np.linalg.norm(targets, axis=1, keepdims=True)).T
            )
            logits[label] -= 0.4
            logits *= 30
            values.append(np.log(np.sum(np.exp(logits))) - logits[label])
            continue
        b = 0.5 * 200 ** (1 / (1 + np.exp(-targets)))
        apart = np.sum((x - x[a]) ** 2, axis=1)
        repelled = np.exp(-b * apart[labels != label]).sum()
        values.append(
            np.mean(
                [
                    np.log(1 + repelled / np.exp(-b * apart[p]))
                    for p in range(len(x))
                    if labels[p] == label and p != a
                ]
            )
        )
    return np.mean(values)


def loss_with_weights(name):
    if name == "cosface":
        return losses.PlaceCosFaceLoss(num_places=12)
    return losses.PlaceSARELoss(inverse_bandwidth=losses.InverseBandwidth(10.0))


@pytest.mark.parametrize("chunk_images", [0, 4])
@pytest.mark.parametrize("name", ["cosface", "bandwidth"])
def test_weights_of_a_loss_are_trained(name, chunk_images):
    """Plain SGD: a step is the gradient, of the definition by differences.

    The rate is that of both, the embedder's and the loss's.
    """
    images, labels, _ = data()
    made = network(loss=loss_with_weights(name), chunk_images=chunk_images)
    (weight,) = made.loss_layer.trainable_variables
    before = keras.ops.convert_to_numpy(weight).astype(float)
    x = made.predict(images[:8], verbose=0).astype(float)
    found = float(made.train_on_batch(images[:8], labels[:8]))
    assert found == pytest.approx(
        definition(name, labels[:8], x, before), rel=1e-5
    )
    step = keras.ops.convert_to_numpy(weight).astype(float) - before
    expected = finite_differences(
        lambda w: definition(name, labels[:8], x, w), before
    )
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(step, -0.1 * expected, atol=2e-6)
    # As Keras computes it for `evaluate`.
    assert made.evaluate(images[:8], labels[:8], verbose=0) == pytest.approx(
        definition(
            name,
            labels[:8],
            made.predict(images[:8], verbose=0).astype(float),
            keras.ops.convert_to_numpy(weight).astype(float),
        ),
        rel=1e-5,
    )


@pytest.mark.parametrize("rule", ["adam", "sgd"])
@pytest.mark.parametrize("name", ["cosface", "bandwidth"])
def test_a_loss_with_weights_is_saved_and_resumed(name, rule, tmp_path):
    """Bitwise, without a decay of the weights of the loss."""
    images, labels, _ = data()
    made = network(
        loss=loss_with_weights(name),
        optimizer=optimizers.build(rule, learning_rate=0.01, weight_decay=0.5),
    )
    made.optimizer.build(made.trainable_variables)
    (weight,) = made.loss_layer.trainable_variables
    # The optimizer has no gradient for it: it stays, if it does not decay.
    before = keras.ops.convert_to_numpy(weight)
    made.optimizer.apply([0 * v for v in made.trainable_variables])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), before)
    train(made, images, labels)
    assert (keras.ops.convert_to_numpy(weight) != before).any()
    made.save(tmp_path / "network.keras")
    again = keras.saving.load_model(tmp_path / "network.keras")
    assert again.loss_layer is again.loss.layer
    np.testing.assert_array_equal(
        train(made, images, labels), train(again, images, labels)
    )
    for a, b in zip(numpy(made.weights), numpy(again.weights), strict=True):
        np.testing.assert_array_equal(a, b)
    # The embedder does not need them.
    alone = run_folder.load_embedder(tmp_path / "network.keras")
    assert len(alone.weights) == len(made.embedder.weights)


def test_another_loss_takes_the_place_of_one_with_weights(tmp_path):
    images, labels, _ = data()
    made = network(loss=loss_with_weights("cosface"))
    made.compile(
        keras.optimizers.SGD(0.1), losses.PlaceSARELoss(inverse_bandwidth=5.0)
    )
    assert made.loss_layer is None
    expected = train(network(), images, labels)
    np.testing.assert_array_equal(train(made, images, labels), expected)
    made.save(tmp_path / "network.keras")
    again = keras.saving.load_model(tmp_path / "network.keras")
    assert len(again.weights) == len(made.embedder.weights)


@pytest.mark.parametrize("eager", [False, True])
def test_labels_beyond_the_places_of_a_loss_are_refused(eager):
    images, labels, _ = data()
    made = network(loss=losses.PlaceCosFaceLoss(num_places=3))
    made.run_eagerly = eager
    refused = ValueError if eager else tf.errors.InvalidArgumentError
    with pytest.raises(refused, match="from 0 to 2.*The loss has 3 places"):
        made.train_on_batch(images[:8], labels[:8])


def test_positives_have_weights():
    """Of a batch of 2 places of 4 images, beside the whole matrix."""
    images, _, _ = data()
    labels = np.repeat([5, 3], 4)
    weights = np.random.default_rng(0).uniform(size=(8, 4)).astype("float32")
    whole = np.zeros((8, 8), np.float32)
    whole[:4, :4], whole[4:, 4:] = weights[:4], weights[4:]
    made = network()
    x = made.predict(images[:8], verbose=0)
    expected = np.mean(
        made.loss.call_with_weights(
            labels, tf.constant(x), positive_weights=whole
        )
    )
    equal = np.mean(made.loss.call(labels, tf.constant(x)))
    assert abs(expected - equal) > 1e-3
    found = made.train_on_batch(
        images[:8], {"labels": labels, "positive_weights": weights}
    )
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    for settings in (
        {"loss": losses.PlaceNPairsLoss()},
        {"memory_images": 4},
    ):
        targets = {"labels": labels, "positive_weights": weights}
        targets["positions"] = np.zeros((8, 2), np.float32)
        with pytest.raises(ValueError, match="have weights, and no memory"):
            network(**settings).train_on_batch(images[:8], targets)


def embedder_with(*layers, regularizer=None):
    images = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3, kernel_regularizer=regularizer)(images)
    for layer in layers:
        x = layer(x)
    x = keras.layers.UnitNormalization()(keras.layers.Flatten()(x))
    return keras.Model(images, x, name="embedder")


@pytest.mark.parametrize(
    "layer",
    [keras.layers.BatchNormalization, lambda: keras.layers.Dropout(0.1)],
)
def test_layers_that_chunks_would_change_are_refused(layer):
    embedder = embedder_with(layer())
    whole = PlaceNetwork(embedder)
    with pytest.raises(ValueError, match="same descriptor in every batch"):
        PlaceNetwork(embedder, chunk_images=4)
    # As a run does that goes on with other chunks.
    with pytest.raises(ValueError, match="same descriptor in every batch"):
        whole.chunk_images = 4


def test_layers_that_chunks_do_not_change_are_taken():
    frozen = keras.layers.BatchNormalization(trainable=False)
    PlaceNetwork(
        embedder_with(frozen, keras.layers.Dropout(0.0)), chunk_images=4
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chunk_images": 3}, "chunk_images=3, 8 images"),
        (
            {"embedder": embedder_with(regularizer=keras.regularizers.L2(0.1))},
            "1 such losses in the embedder",
        ),
        (
            {"loss": losses.PlaceNPairsLoss(), "memory_images": 4},
            "only SARE losses take a memory.*memory_images=4",
        ),
        (
            {"loss": losses.PlaceSARELoss(reduction="sum")},
            "reduction is the mean over anchors",
        ),
    ],
)
def test_what_cannot_be_trained_with_is_refused(settings, message):
    images, labels, positions = data()
    targets = labels[:8]
    if "memory_images" in settings:
        targets = {"labels": targets, "positions": positions[:8]}
    with pytest.raises(ValueError, match=message):
        network(**settings).train_on_batch(images[:8], targets)


def test_weights_of_samples_are_refused():
    images, labels, _ = data()
    with pytest.raises(ValueError, match=r"sample_weight, of shape \(8,"):
        network().train_on_batch(images[:8], labels[:8], np.ones(8))


def test_another_name_is_refused():
    embedder = keras.Model(*[keras.Input((3,))] * 2, name="mine")
    with pytest.raises(ValueError, match="embedder.name='mine'"):
        PlaceNetwork(embedder)


class PositivePairs(keras.losses.Loss):
    """A loss of somebody else, who expects float32 as Keras gives it."""

    def call(self, y_true, y_pred):
        assert y_true.dtype == "float32"
        same = keras.ops.cast(y_true[:, None] == y_true[None, :], "float32")
        return keras.ops.sum(same, axis=1) + 0.0 * keras.ops.sum(y_pred)


def test_labels_of_any_size_are_compared_exactly():
    images, labels, _ = data()
    large = labels.astype(np.int64) + 2**40
    trained = [train(network(), images, x) for x in (labels, large)]
    np.testing.assert_array_equal(*trained)
    evaluated = [
        network().evaluate(images[:8], x[:8], verbose=0)
        for x in (labels, large)
    ]
    assert evaluated[0] == evaluated[1]


def test_a_loss_of_others_trains_on_labels_of_any_size():
    images, labels, _ = data()
    labels = labels.astype(np.int64) + 2**40
    made = network(loss=PositivePairs())
    for call in (made.train_on_batch, made.test_on_batch):
        # Each image, and one more of its place.
        assert float(call(images[:8], labels[:8])) == 2.0


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize(
    ("settings", "shift", "dtype"),
    [
        ({}, 2**24, np.float32),
        ({"memory_images": 4}, 2**24, np.int64),
        ({"memory_images": 4}, -100, np.int64),
    ],
)
def test_labels_that_may_merge_are_refused(settings, shift, dtype, eager):
    images, labels, positions = data()
    targets = (labels.astype(np.int64) + shift).astype(dtype)[:8]
    if settings:
        targets = {"labels": targets, "positions": positions[:8]}
    made = network(**settings)
    made.run_eagerly = eager
    refused = ValueError if eager else tf.errors.InvalidArgumentError
    with pytest.raises(refused, match="Expected labels of places from .*16777"):
        made.train_on_batch(images[:8], targets)


def test_one_hot_labels_are_refused():
    images, labels, _ = data()
    one_hot = np.eye(12)[labels[:8]]
    for call in (network().train_on_batch, network().test_on_batch):
        with pytest.raises(ValueError, match="argmax.*one-hot"):
            call(images[:8], one_hot)
