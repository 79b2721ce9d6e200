"""Whitening and truncation in the exported graph."""

import dataclasses

import keras
import numpy as np
import pytest
from toy_export import (
    WHITENED,
    embedder,
    expected,
    load,
    photographs,
    unit,
    whitened,
)

from sare_tf import export, model, serving
from sare_tf.model.exported_graph import ExportedGraph
from sare_tf.records.records import Records
from sare_tf.training import whitening_fit
from sare_tf.training.options import ExportOptions
from sare_tf.training.run_folder import read_state


def test_whitening_is_the_formula_on_what_keras_gives(root):
    encoded = photographs()
    found, _ = load(root / "whitened")(encoded)
    assert found.shape == (5, WHITENED)
    np.testing.assert_allclose(
        found, whitened(root, expected(root, encoded), WHITENED), atol=1e-5
    )


@pytest.fixture(scope="module")
def fit(root):
    """Fits whitening; descriptors of the photographs, and the card's entry."""
    keras_model = embedder(root)

    def fit(dimension, *, samples=10_000, seed=0):
        graph = ExportedGraph(embedder=keras_model, height=32, width=32)
        layer, card = whitening_fit.to_records(
            graph,
            Records(root / "records"),
            dimension=dimension,
            samples=samples,
            batch_size=4,
            seed=seed,
        )
        graph = dataclasses.replace(graph, whitening=layer)
        return graph.serve(photographs())["descriptor"].numpy(), card

    return fit


def test_fewer_dimensions_are_the_first_of_more(root, fit):
    more, _ = load(root / "whitened")(photographs())
    found, _ = fit(2)
    np.testing.assert_allclose(found, unit(more[:, :2]), atol=1e-5)


def test_whitening_is_fitted_to_a_seeded_sample(fit):
    first, told = fit(2, samples=6)
    assert (told["samples"], told["seed"]) == (6, 0)
    np.testing.assert_allclose(fit(2, samples=6)[0], first, atol=1e-6)
    other, _ = fit(2, samples=6, seed=1)
    assert np.abs(other - first).max() > 1e-2


def test_whitening_is_learned_from_pairs_of_train(root, tmp_path):
    """Each query with one positive, by the formula on what Keras gives."""
    version = export.run(
        ExportOptions(
            checkpoints=root / "checkpoints",
            export=tmp_path / "export",
            records=root / "records",
            whitening_dimension=3,
            whitening_pairs=True,
        )
    )
    servable = serving.load(version)
    told = servable.metadata["whitening"]
    records = Records(root / "records")
    queries = records.rows("train", "query")
    assert told["fitted_to"] == (
        f"{len(queries)} pairs of a query and a positive of the train split"
    )
    graph = ExportedGraph(embedder=embedder(root), height=32, width=32)
    config, _ = read_state(root / "checkpoints")
    options = ExportOptions(
        checkpoints=root / "checkpoints",
        export=tmp_path / "export",
        whitening_dimension=3,
        whitening_pairs=True,
    )
    layer, again = whitening_fit.fit(graph, records, options, config)
    assert again == told
    encoded = photographs()
    found, _ = servable(encoded)
    moved = expected(root, encoded) @ np.asarray(layer.projection)
    np.testing.assert_allclose(
        found, unit(moved + np.asarray(layer.bias)), atol=1e-5
    )


def test_truncated_descriptors_are_the_first_numbers(root, tmp_path):
    def truncated(**options):
        version = export.run(
            ExportOptions(
                checkpoints=root / "checkpoints",
                export=tmp_path / "export",
                records=root / "records",
                **options,
            )
        )
        return serving.load(version)

    encoded = photographs()
    whole = expected(root, encoded)
    graph = ExportedGraph(
        embedder=embedder(root), height=32, width=32, truncate_dimension=7
    )
    assert (graph.dimension, graph.card()["truncated_from"]) == (7, 384)
    np.testing.assert_allclose(
        graph.serve(encoded)["descriptor"], unit(whole[:, :7]), atol=1e-5
    )
    servable = truncated(whitening_dimension=WHITENED, truncate_dimension=2)
    assert servable.metadata["truncated_from"] == WHITENED
    assert servable.metadata["whitening"]["dimension"] == WHITENED
    np.testing.assert_allclose(
        servable(encoded)[0],
        unit(whitened(root, whole, WHITENED)[:, :2]),
        atol=1e-5,
    )
    for options, most in (({}, 384), ({"whitening_dimension": 5}, 5)):
        with pytest.raises(ValueError, match=f"1 to {most} .*={most + 1}"):
            truncated(truncate_dimension=most + 1, **options)


def test_whitening_that_cannot_be_fitted(root, tmp_path):
    def run(**options):
        export.run(
            ExportOptions(
                checkpoints=root / "checkpoints",
                export=tmp_path / "export",
                **options,
            )
        )

    records = root / "records"
    with pytest.raises(ValueError, match="fit whitening to.*records=None"):
        run(whitening_dimension=2)
    with pytest.raises(ValueError, match="at least 13 samples.* 12 samples"):
        run(whitening_dimension=12, records=records)
    with pytest.raises(ValueError, match="at least 4 samples.* 3 samples"):
        run(whitening_dimension=3, records=records, whitening_samples=3)
    with pytest.raises(ValueError, match="from 1 to 384.*dimension=400"):
        run(whitening_dimension=400, records=records)
    assert not (tmp_path / "export").exists()


def test_whitening_by_the_public_functions(root, tmp_path):
    network = embedder(root)
    records = Records(root / "records")
    images = records.read_images(records.rows("train", "database"))
    layer = model.fit_whitening(expected(root, images), WHITENED)
    export(network, tmp_path, height=32, width=32, whitening=layer)
    servable = serving.load(tmp_path)
    encoded = photographs()
    np.testing.assert_allclose(
        servable(encoded)[0],
        whitened(root, expected(root, encoded), WHITENED),
        atol=1e-5,
    )
    assert servable.metadata["whitening"] == {
        "dimension": WHITENED,
        "fitted_to": "given to export",
    }
    other = model.fit_whitening(np.eye(9, 5), 2)
    with pytest.raises(ValueError, match="of 384 numbers.*fitted to 5.*fit_w"):
        export(network, tmp_path, height=32, width=32, whitening=other)
    twice = keras.Model(network.input, layer(network.output), name="embedder")
    with pytest.raises(ValueError, match="whitening=None for an embedder"):
        export(twice, tmp_path, height=32, width=32, whitening=layer)
