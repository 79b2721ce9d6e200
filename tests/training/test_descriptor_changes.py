"""The change by precision and shortening, against exports and plain numpy."""

import keras
import numpy as np
import pytest

from sare_tf import export, model, serving
from sare_tf.records.records import Records
from sare_tf.training import descriptor_changes, run_folder
from sare_tf.training.options import ExportOptions


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A network that was not trained, as import_weights writes one."""
    folder = tmp_path_factory.mktemp("changes") / "run"
    settings = {"backbone": "small", "aggregation": "netvlad"}
    keras.utils.set_random_seed(0)
    embedder = model.build_embedder(num_clusters=4, **settings)
    size = {"image_height": 32, "image_width": 32}
    run_folder.write_untrained(
        folder,
        {
            **settings,
            **size,
            "num_clusters": 4,
            "records_fingerprint": None,
            "imported": {},
            "whitening": None,
        },
        network=model.over_tuples(embedder),
    )
    return folder


@pytest.fixture(scope="module")
def exported(toy_records, checkpoints, tmp_path_factory):
    """Exports with options, and returns the servable of the new version."""
    folder = tmp_path_factory.mktemp("changes") / "export"

    def run(**options):
        return serving.load(
            export.run(
                ExportOptions(
                    checkpoints=checkpoints,
                    export=folder,
                    records=toy_records,
                    allow_other_records=True,
                    **options,
                )
            )
        )

    return run


@pytest.fixture(scope="module")
def whole(exported):
    """Whole and float32, of which there is nothing to measure."""
    servable = exported()
    assert servable.metadata["measured"] is None
    assert servable.metadata["precision"] == "float32"
    return servable


def embedded(servable, toy_records, split):
    """Descriptors, and places, of queries and database."""
    records = Records(toy_records)
    roles = []
    for role in ("query", "database"):
        rows = records.rows(split, role)
        descriptors, _ = servable(list(records.read_images(rows)))
        roles.append((descriptors, rows["place_id"].to_numpy()))
    return roles


def nearest(roles, k):
    (queries, _), (database, _) = roles
    distances = [
        [np.sum((query - image) ** 2) for image in database]
        for query in queries
    ]
    return np.argsort(distances, axis=1, kind="stable")[:, :k]


def assert_step(step, roles, reference):
    """The figures, one query after the other."""
    (_, places), (database, database_places) = roles
    assert step["numbers"] == database.shape[1]
    assert step["neighbours"] == 10
    found, expected = nearest(roles, 10), nearest(reference, 10)
    for k in (1, 5, 10):
        right = [
            place in database_places[rows[:k]]
            for place, rows in zip(places, found, strict=True)
        ]
        assert step["recall_at"][str(k)] == round(np.mean(right), 4)
    same, shared = [], []
    for rows, before in zip(found, expected, strict=True):
        same.append(rows[0] == before[0])
        shared.append(len({*rows} & {*before}) / 10)
    assert step["same_first"] == round(np.mean(same), 4)
    assert step["shared_neighbours"] == pytest.approx(np.mean(shared), abs=6e-5)


def test_each_step_is_measured(exported, whole, toy_records):
    half = exported(export_precision="mixed_bfloat16")
    short = exported(
        export_precision="mixed_bfloat16",
        whitening_dimension=5,
        truncate_dimension=3,
        measured_split="test",
    )
    measured = half.metadata["measured"]
    assert (measured["split"], measured["queries"]) == ("val", 12)
    reference = embedded(whole, toy_records, "val")
    in_half = embedded(half, toy_records, "val")
    first, second = measured["steps"]
    assert_step(first, reference, reference)
    assert_step(second, in_half, reference)
    assert (first["same_first"], first["cosine_min"]) == (1, 1)
    cosines = np.concatenate(
        [
            np.sum(a * b, axis=1)
            for (a, _), (b, _) in zip(in_half, reference, strict=True)
        ]
    )
    assert second["cosine_min"] == pytest.approx(cosines.min(), abs=2e-6)
    assert second["cosine_mean"] == pytest.approx(cosines.mean(), abs=2e-6)
    assert 0.99 < cosines.min() < 1
    measured = short.metadata["measured"]
    names = [step["descriptor"] for step in measured["steps"]]
    assert names == ["float32", "mixed_bfloat16", "whitened", "truncated"]
    numbers = [step["numbers"] for step in measured["steps"]]
    assert numbers == [384, 384, 5, 3]
    reference = embedded(whole, toy_records, "test")
    assert_step(
        measured["steps"][-1], embedded(short, toy_records, "test"), reference
    )
    assert "cosine_min" not in measured["steps"][-1]


def test_a_half_export_is_smaller_and_another_model(exported, whole):
    half = exported(export_precision="mixed_float16")
    assert half.metadata["precision"] == "mixed_float16"
    assert half.fingerprint != whole.fingerprint

    def size(servable):
        files = (servable.path / "variables").iterdir()
        return sum(path.stat().st_size for path in files)

    # NetVLAD stays float32.
    assert size(half) < 0.7 * size(whole)


def test_the_figures_in_words(exported, caplog):
    servable = exported(truncate_dimension=100)
    steps = servable.metadata["measured"]["steps"]
    first, second = descriptor_changes.as_text(steps)
    assert first.startswith("float32, 384 numbers: recall@1 ")
    assert second.startswith("truncated, 100 numbers: recall@1 ")
    assert "% of the nearest 10." in second
    for line in (first, second):
        assert line in caplog.text


def test_a_sample_keeps_positives_and_is_repeatable(toy_records, whole):
    def sample(seed, count):
        options = ExportOptions(
            checkpoints="unused",
            export="unused",
            measured_images=count,
            seed=seed,
        )
        return descriptor_changes._sample(Records(toy_records), options, {})

    some = sample(0, 12)
    # Of 24 images, at most 6 are queries and positives: 3 queries of a place
    # with 2 images of it ... and other database images.
    assert len(some.queries) + len(some.database) == 12
    for query, positives in zip(
        some.queries["place_id"], some.positives, strict=True
    ):
        places = some.database["place_id"].iloc[positives]
        assert set(places) == {query}
        assert len(places) == 2
    again, other = sample(0, 12), sample(1, 12)
    assert some.queries.equals(again.queries)
    assert some.database.equals(again.database)
    assert not some.queries.equals(other.queries)
    assert len(sample(0, 24).queries) == 12


def test_nothing_is_measured_without_a_word(exported, toy_records, caplog):
    assert (
        exported(truncate_dimension=9, measured_images=0).metadata["measured"]
        is None
    )
    assert "not measured" not in caplog.text
    servable = exported(truncate_dimension=9, measured_split="train")
    assert servable.metadata["measured"]["split"] == "train"


def test_without_records_nothing_is_measured(checkpoints, tmp_path):
    options = ExportOptions(
        checkpoints=checkpoints, export=tmp_path, truncate_dimension=9
    )
    with pytest.raises(ValueError, match="records to measure on.*None"):
        descriptor_changes._sample(None, options, {})
    servable = serving.load(export.run(options))
    assert servable.metadata["measured"] is None
