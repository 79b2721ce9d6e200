"""`evaluate` with query expansion, diffusion and k-reciprocal re-ranking."""

import json

import numpy as np
import protocol_world
import pytest
import toy_index
import toy_search

from sare_tf import evaluate, index
from sare_tf.evaluation import evaluate_descriptors, landmarks, protocols
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.landmarks import expansion, neighbour_graph
from sare_tf.landmarks.diffusion import Diffusion
from sare_tf.pages.options import LocateOptions
from sare_tf.search import index_changes
from sare_tf.search.landmark_options import GRAPH, GRAPH_ROWS
from sare_tf.search.opened_index import Index
from sare_tf.search.options import IndexOptions

_FOLDERS = {"records": "r", "export": "e", "index": "i", "evaluation": "o"}


def _world(tmp_path, protocol):
    world = protocol_world.World(0)
    task = evaluate_descriptors.prepare(
        protocols.choose(protocol),
        world.queries,
        world.database,
        relations=world.relations,
    )
    opened = Index.build(
        world.database_vectors,
        image_ids=world.database["image_id"],
        out=tmp_path / "index",
    )
    vectors = world.query_vectors[task.asked]
    results = task.evaluate(vectors, world.database_vectors, num_neighbours=30)
    return world, task, opened, results


def _precision(ranking, right):
    """Area below precision over recall, by trapezoids."""
    area, before, hits = 0.0, 1.0, 0
    for number, row in enumerate(ranking, start=1):
        hits += row in right
        precision = hits / number
        if row in right:
            area += (before + precision) / 2 / len(right)
        before = precision
    return area


@pytest.mark.parametrize("top", [20, 90, 1000])
def test_the_order_and_precisions_of_diffusion_equal_a_loop(tmp_path, top):
    world, task, opened, results = _world(tmp_path, "roxford5k_medium")
    options = EvaluationOptions(
        **_FOLDERS, rerank="diffusion", rerank_top=top, graph_neighbours=8
    )
    found = landmarks.look_up(
        results,
        options,
        task=task,
        query_vectors=world.query_vectors,
        index=opened,
    )
    diffusion = Diffusion(
        neighbour_graph.build(world.database_vectors, 8),
        gamma=3,
        alpha=0.99,
        start=10,
    )
    areas, changed = [], 0
    for q in range(24):
        ranking = np.array(world.ranking(q))
        near = ranking[:top]
        cosines = world.database_vectors[near] @ world.query_vectors[q]
        order = np.argsort(diffusion(near, cosines), kind="stable")
        ranking[:top] = near[order]
        kept = [d for d in ranking if world.kind.get((q, d)) != "junk"]
        right = {d for d in kept if world.kind.get((q, d)) in ("easy", "hard")}
        assert found.after.rows[q].tolist() == kept[:30]
        far = world.database_vectors[kept[:30]] - world.query_vectors[q]
        np.testing.assert_allclose(
            found.after.squared_distances[q], (far**2).sum(axis=1), atol=1e-5
        )
        changed += found.after.rows[q, 0] != found.before.rows[q, 0]
        if right:
            areas.append(_precision(kept, right))
    assert found.after.mean_average_precision == pytest.approx(np.mean(areas))
    assert changed > 2
    assert found.figures["ms_per_query"]["rerank"] > 0
    described = landmarks.described(found, [1, 5])
    assert described["without_rerank"]["precisions"]["average_precision"] == (
        pytest.approx(found.before.mean_average_precision)
    )


@pytest.mark.parametrize("protocol", ["roxford5k_hard", "msls", "gldv2"])
def test_expanded_queries_are_searched_again(tmp_path, protocol):
    world, task, opened, results = _world(tmp_path, protocol)
    vectors = world.query_vectors[task.asked]
    options = EvaluationOptions(**_FOLDERS, expand_queries=4, expand_alpha=0)
    found = landmarks.look_up(
        results, options, task=task, query_vectors=vectors, index=opened
    )
    expected = task.evaluate(
        expansion.expand_queries(
            vectors,
            world.database_vectors,
            count=4,
            alpha=0,
            allowed=task.truth.allowed,
        ),
        world.database_vectors,
        num_neighbours=30,
    )
    np.testing.assert_array_equal(found.after.rows, expected.rows)
    for name, values in expected.precisions.items():
        np.testing.assert_array_equal(found.after.precisions[name], values)
    assert (found.after.rows != results.rows).any()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return toy_index.build(tmp_path_factory.mktemp("toy"))


def _inputs(built):
    return {
        "records": built["records"],
        "export": built["export"],
        "index": built["out"],
    }


@pytest.mark.parametrize(
    "options",
    [
        {"rerank": "k_reciprocal", "reciprocal_k1": 3, "reciprocal_k2": 2},
        {"expand_queries": 2, "rerank": "diffusion", "graph_neighbours": 3},
    ],
)
def test_metrics_and_report(built, tmp_path, options):
    """Places of the toy are alike inside, so that nothing gets worse."""
    out = tmp_path / "evaluation"
    path = evaluate.run(
        EvaluationOptions(
            **_inputs(built),
            evaluation=out,
            recall_at=[1, 3],
            baseline_images=0,
            **options,
        )
    )
    metrics = json.loads(path.read_text())
    assert metrics["recall_at"] == {"1": 10 / 12, "3": 10 / 12}
    assert metrics["without_rerank"]["recall_at"] == metrics["recall_at"]
    figures = metrics["landmarks"]
    assert (figures["made_right"], figures["made_wrong"]) == (0, 0)
    times = figures["ms_per_query"]
    assert ("expansion" in times) == ("expand_queries" in options)
    assert ("rerank" in times) == ("rerank" in options)
    page = (out / "report.html").read_text()
    assert figures["done"][0] in page
    assert "<th>without</th>" in page


def test_a_graph_is_bound_to_its_index(built, tmp_path, caplog):
    copied = toy_index.copy(built, tmp_path)
    out = copied["out"]
    index.run(IndexOptions(**_inputs(copied), batch_size=4, neighbour_graph=6))
    opened = Index.open(out, exact=True)
    expected = neighbour_graph.build(opened.descriptors, 4)
    caplog.clear()
    stored = neighbour_graph.of_index(opened, 4)
    assert not caplog.records
    np.testing.assert_array_equal(stored.rows, expected.rows)
    before = (out / GRAPH).stat().st_mtime_ns
    index.run(IndexOptions(**_inputs(copied), batch_size=4, neighbour_graph=6))
    assert (out / GRAPH).stat().st_mtime_ns == before
    # More than it has.
    graph = neighbour_graph.of_index(opened, 7)
    assert "it has 6 neighbours of each image" in caplog.text
    assert graph.rows.shape == (18, 7)
    # After a change, images that were removed are in no list.
    removed = opened.manifest["image_id"].iloc[[0, 7]]
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(removed))
    index_changes.remove(index=out, ids=ids)
    changed = Index.open(out, exact=True)
    graph = neighbour_graph.of_index(changed, 4)
    assert "was made for another content of the index" in caplog.text
    assert graph.rows.shape == (16, 4)
    assert graph.rows.max() == 15
    expanded = expansion.expand_queries(
        opened.descriptors[[0]], changed.descriptors, count=2, alpha=3
    )
    # Its two other views, and not itself.
    total = opened.descriptors[0].astype(float)
    for row in (1, 2):
        view = opened.descriptors[row]
        total = total + float(view @ opened.descriptors[0]) ** 3 * view
    np.testing.assert_allclose(
        expanded[0], total / np.linalg.norm(total), atol=1e-5
    )


def test_a_damaged_graph_is_made_anew(built, tmp_path, caplog):
    copied = toy_index.copy(built, tmp_path)
    index.run(IndexOptions(**_inputs(copied), batch_size=4, neighbour_graph=6))
    path = copied["out"] / GRAPH_ROWS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    opened = Index.open(copied["out"], exact=True)
    graph = neighbour_graph.of_index(opened, 6)
    assert "is damaged" in caplog.text
    expected = neighbour_graph.build(opened.descriptors, 6)
    np.testing.assert_array_equal(graph.rows, expected.rows)


def test_database_augmentation_is_in_the_index(built, tmp_path, caplog):
    plain = Index.open(built["out"], exact=True)
    inputs = {**_inputs(built), "index": tmp_path / "augmented"}
    options = {"augment_database": 2, "expand_alpha": 1.0, "batch_size": 4}
    index.run(IndexOptions(**inputs, **options))
    opened = Index.open(inputs["index"], exact=True)
    expected = np.concatenate(
        list(
            expansion.augment_database(
                np.asarray(plain.descriptors), count=2, alpha=1.0
            )
        )
    )
    np.testing.assert_allclose(opened.descriptors, expected, atol=1e-6)
    assert opened.metadata["augment_database"] == 2
    # Up to date: nothing is embedded. Without augmentation: everything is.
    before = opened.digest
    index.run(IndexOptions(**inputs, **options))
    assert Index.open(inputs["index"], exact=True).digest == before
    index.run(IndexOptions(**inputs, batch_size=4))
    assert "of another augment_database, expand_alpha" in caplog.text
    again = Index.open(inputs["index"], exact=True)
    np.testing.assert_array_equal(again.descriptors, plain.descriptors)


def test_images_cannot_be_added_to_an_augmented_index(built, tmp_path):
    inputs = {**_inputs(built), "index": tmp_path / "augmented"}
    index.run(IndexOptions(**inputs, augment_database=2, batch_size=4))
    with pytest.raises(ValueError, match="without database augmentation"):
        index_changes.add(
            index=inputs["index"],
            records=toy_search.records(tmp_path / "more", first_place=9),
            export=inputs["export"],
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment_database": 18}, "augment_database of at most 17"),
        ({"neighbour_graph": 18}, "neighbours of at most 17"),
    ],
)
def test_more_neighbours_than_the_index_has(built, tmp_path, options, message):
    copied = toy_index.copy(built, tmp_path)
    with pytest.raises(ValueError, match=message):
        index.run(IndexOptions(**_inputs(copied), batch_size=4, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expand_queries": 19}, "expand_queries of at most 18"),
        ({"rerank": "diffusion"}, "neighbours of at most 17.*neighbours=50"),
        ({"rerank": "k_reciprocal"}, "neighbours of at most 17.*=20"),
    ],
)
def test_more_neighbours_than_evaluate_finds(built, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate.run(
            EvaluationOptions(
                **_inputs(built),
                evaluation=tmp_path / "x",
                baseline_images=0,
                **options,
            )
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"expand_queries": 3, "rerank": "rootsift"},
            "--expand_queries without --rerank by local features",
        ),
        (
            {"expand_queries": 3, "sequence_length": 5},
            "--expand_queries or --sequence_length",
        ),
        (
            {"rerank": "diffusion", "sequence_length": 5},
            "--rerank or --sequence_length",
        ),
        (
            {"expand_queries": 3, "distractors": "elsewhere"},
            "--distractors with the order of retrieval",
        ),
        (
            {"sequence_length": 5, "distractors": "elsewhere"},
            "Received: distractors='elsewhere'",
        ),
    ],
)
def test_what_does_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        EvaluationOptions(**_FOLDERS, **options)


def test_what_index_and_locate_do_not_take():
    with pytest.raises(ValueError, match="for a whole index that is built"):
        IndexOptions(**_inputs_of_nothing(), compact=True, augment_database=2)
    with pytest.raises(ValueError, match="local features to re-rank a photo"):
        LocateOptions(index="i", export="e", photos=("a",), rerank="diffusion")


def _inputs_of_nothing():
    return {"index": "i", "records": "r", "export": "e"}
