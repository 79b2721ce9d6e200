"""Every protocol against loops written from its definition."""

import numpy as np
import protocol_world
import pytest

from sare_tf.evaluation import protocols
from sare_tf.evaluation.evaluate_descriptors import evaluate_descriptors


def _degrees(a: float, b: float) -> float:
    apart = abs(a - b)
    return min(apart, 360 - apart)


def _frames_apart(world: protocol_world.World, q: int, d: int) -> float:
    query, image = world.queries.iloc[q], world.database.iloc[d]
    if query.sequence_id != image.sequence_id:
        return float("inf")
    return abs(int(query.frame) - int(image.frame))


def _within(metres):
    return lambda world, q, d: world.metres(q, d) <= metres


def _within_frames(frames):
    return lambda world, q, d: _frames_apart(world, q, d) <= frames


def _listed(*kinds):
    return lambda world, q, d: world.kind.get((q, d)) in kinds


def _same_place(world, q, d):
    return world.queries.place_id[q] == world.database.place_id[d]


def _another_time(world, q, d):
    other = world.queries.timestamp[q] != world.database.timestamp[d]
    return other and world.metres(q, d) <= 25


def _cut_panoramas(world, q, ranking, most):
    kept, seen = [], set()
    for d in ranking[: 12 * most]:
        panorama = world.database.panorama_id[d]
        if panorama not in seen:
            kept.append(d)
        seen.add(panorama)
    return kept


def _cut_timestamps(world, q, ranking, most):
    return [
        d
        for d in ranking[: 10 * most]
        if world.database.timestamp[d] != world.queries.timestamp[q]
    ]


def _cut_junk(*kinds):
    return lambda world, q, ranking, most: [
        d for d in ranking if world.kind.get((q, d)) not in kinds
    ]


def _keep_all(world, q, ranking, most):
    return ranking


def _subtask(world, name):
    def asked(q):
        return name in world.queries.subtasks[q].split()

    def cut(world, q, ranking, most):
        return [
            d for d in ranking if name in world.database.subtasks[d].split()
        ]

    return asked, cut


# Name -> what is right, what is cut from the ranking, whether a query without
# a positive is left out.
REVISITED = {
    "easy": (_listed("easy"), _cut_junk("junk", "hard"), True),
    "medium": (_listed("easy", "hard"), _cut_junk("junk"), True),
    "hard": (_listed("hard"), _cut_junk("junk", "easy"), True),
}
DEFINITIONS = {
    "radius": (_within(12), _keep_all, False),
    "place": (_same_place, _keep_all, False),
    "frames": (_within_frames(3), _keep_all, False),
    "list": (_listed("positive", "easy", "hard"), _cut_junk("junk"), False),
    "pitts30k": (_within(25), _keep_all, False),
    "pitts250k": (_within(25), _keep_all, False),
    "tokyo247": (_within(25), _cut_panoramas, False),
    "tokyo247_no_suppression": (_within(25), _keep_all, False),
    "tokyotm": (_another_time, _cut_timestamps, False),
    "msls": (_within(25), _keep_all, True),
    "nordland": (_within_frames(10), _keep_all, False),
    "nordland_vprbench": (_within_frames(1), _keep_all, False),
    "nordland_patchnetvlad": (_within_frames(7), _keep_all, False),
    "nordland_selavpr": (_within_frames(2), _keep_all, False),
    **{f"roxford5k_{level}": rule for level, rule in REVISITED.items()},
    **{f"rparis6k_{level}": rule for level, rule in REVISITED.items()},
    "oxford5k": (_listed("positive"), _cut_junk("junk"), True),
    "paris6k": (_listed("positive"), _cut_junk("junk"), True),
    "holidays": (
        _listed("positive", "easy", "hard"),
        _cut_junk("junk"),
        True,
    ),
    "gldv2": (_listed("positive", "easy", "hard"), _cut_junk("junk"), True),
}


def _by_definition(
    world,
    name,
    most,
    *,
    heading_deg=0.0,
    subtask="all",
    other_sequence=False,
):
    """Recall@1 to most, and the mean of trapezoid average precisions."""
    right, cut, leaves_out = DEFINITIONS[name]
    asked = list(range(len(world.queries)))
    if name == "nordland_vprbench":
        first = min(world.queries.frame)
        asked = [q for q in asked if (world.queries.frame[q] - first) % 10 == 0]
    if name == "msls":
        of_subtask, cut = _subtask(world, subtask)
        asked = [q for q in asked if of_subtask(q)]
    found, precisions = [], []
    for q in asked:
        # What a subtask leaves out of the database is no positive either.
        known = range(len(world.database))
        if name == "msls":
            known = cut(world, q, known, most)
        positives = {d for d in known if right(world, q, d)}
        if heading_deg:
            own = world.queries.heading_deg[q]
            positives = {
                d
                for d in positives
                if _degrees(own, world.database.heading_deg[d]) <= heading_deg
            }
        ranking = cut(world, q, world.ranking(q), most)
        if other_sequence:
            own = world.queries.sequence_id[q]
            of_others = world.database.sequence_id != own
            positives = {d for d in positives if of_others[d]}
            ranking = [d for d in ranking if of_others[d]]
        if leaves_out and not positives:
            continue
        found.append(
            [
                any(d in positives for d in ranking[:n])
                for n in range(1, most + 1)
            ]
        )
        area, before, hits = 0.0, 1.0, 0
        for number, d in enumerate(ranking, start=1):
            hits += d in positives
            precision = hits / number
            if d in positives:
                area += (before + precision) / 2 / len(positives)
            before = precision
        precisions.append(area)
    return np.mean(found, axis=0), np.mean(precisions)


def _by_sare_tf(world, name, most, **numbers):
    protocol = protocols.choose(name, **numbers)
    return evaluate_descriptors(
        protocol,
        queries=world.queries,
        database=world.database,
        query_vectors=world.query_vectors,
        database_vectors=world.database_vectors,
        relations=None if protocol.rule == "frames" else world.relations,
        num_neighbours=most,
    )


def _recall(results, most):
    return list(results.recall_at(range(1, most + 1)).values())


# `test_sequences.py` has those of sequences.
OF_IMAGES = [
    name for name, some in protocols.PROTOCOLS.items() if not some.sequences
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", OF_IMAGES)
def test_recall_equals_a_loop_from_the_definition(name, seed):
    world = protocol_world.World(seed)
    numbers = {"radius": {"radius_m": 12.0}, "frames": {"frames": 3}}
    # 7: the suppression of Tokyo 24/7 looks at 84 of 90 images, the filter of
    # Tokyo Time Machine at 70.
    results = _by_sare_tf(world, name, 7, **numbers.get(name, {}))
    expected, _ = _by_definition(world, name, 7)
    np.testing.assert_allclose(_recall(results, 7), expected, atol=1e-12)
    assert 0 < expected[-1]
    assert results.rows.shape == results.squared_distances.shape
    np.testing.assert_array_equal(
        np.isinf(results.squared_distances), results.rows < 0
    )
    figures = results.figures([1, 7])
    assert figures["recall_at"]["7"] == pytest.approx(expected[-1])


@pytest.mark.parametrize(
    ("name", "radius_m"), [("radius", 12.0), ("msls", 25.0)]
)
def test_positives_by_heading(name, radius_m):
    world = protocol_world.World(0)
    results = _by_sare_tf(world, name, 9, heading_deg=40.0, radius_m=radius_m)
    expected, _ = _by_definition(world, name, 9, heading_deg=40.0)
    np.testing.assert_allclose(_recall(results, 9), expected, atol=1e-12)
    assert (expected != _by_definition(world, name, 9)[0]).any()


@pytest.mark.parametrize("name", ["radius", "place", "list"])
def test_the_query_s_own_sequence_is_left_out(name):
    world = protocol_world.World(0)
    numbers = {"radius_m": 12.0} if name == "radius" else {}
    results = _by_sare_tf(world, name, 9, other_sequence=True, **numbers)
    expected, _ = _by_definition(world, name, 9, other_sequence=True)
    everything, _ = _by_definition(world, name, 9)
    np.testing.assert_allclose(_recall(results, 9), expected, atol=1e-12)
    assert (expected != everything).any()
    # Half of the images are of the query's sequence, and 9 others are found.
    own = world.queries.sequence_id.to_numpy()[:, None]
    assert (results.rows >= 0).all()
    assert (world.database.sequence_id.to_numpy()[results.rows] != own).all()


def test_a_left_out_sequence_needs_sequences():
    world = protocol_world.World(0)
    world.database["sequence_id"] = ""
    with pytest.raises(ValueError, match="sequence_id of every .*: 90 images"):
        _by_sare_tf(world, "place", 9, other_sequence=True)


@pytest.mark.parametrize("subtask", ["d2n", "s2w"])
def test_subtasks_choose_queries_and_database(subtask):
    world = protocol_world.World(0)
    results = _by_sare_tf(world, "msls", 9, subtask=subtask)
    expected, _ = _by_definition(world, "msls", 9, subtask=subtask)
    np.testing.assert_allclose(_recall(results, 9), expected, atol=1e-12)
    assert 0 < results.truth.allowed.sum() < 90
    assert 0 < len(results.queries) < 24


FULL = [name for name, some in protocols.PROTOCOLS.items() if some.full_ranking]


@pytest.mark.parametrize("name", FULL)
def test_mean_average_precision_equals_a_loop_over_the_ranking(name):
    world = protocol_world.World(0)
    results = _by_sare_tf(world, name, 9)
    _, expected = _by_definition(world, name, 9)
    assert results.mean_average_precision == pytest.approx(expected, abs=1e-12)
    assert set(FULL) >= {"oxford5k", "holidays", "rparis6k_hard"}


def test_a_protocol_without_a_full_ranking_has_no_mean_average_precision():
    results = _by_sare_tf(protocol_world.World(0), "msls", 9)
    assert results.mean_average_precision is None
    # But the mAP@N that it names, for which it ranks 20 neighbours.
    assert list(results.precisions) == [
        f"average_precision_at_{k}" for k in (1, 5, 10, 20)
    ]
    assert results.rows.shape[1] == 20


def test_a_name_stands_for_its_protocol():
    world = protocol_world.World(0)
    tables = {"queries": world.queries, "database": world.database}
    vectors = {
        "query_vectors": world.query_vectors,
        "database_vectors": world.database_vectors,
    }
    by_name = evaluate_descriptors("pitts30k", **tables, **vectors)
    assert by_name.protocol == protocols.PROTOCOLS["pitts30k"]
    # All 90 images are ranked, as fewer than 100.
    assert by_name.rows.shape == (24, 90)
    with pytest.raises(ValueError, match="Received: protocol='pitts'"):
        evaluate_descriptors("pitts", **tables, **vectors)


def test_tables_and_vectors_that_do_not_fit():
    world = protocol_world.World(0)
    given = {
        "queries": world.queries,
        "database": world.database,
        "query_vectors": world.query_vectors,
        "database_vectors": world.database_vectors,
    }
    for name, value, message in (
        (
            "queries",
            world.queries.drop(columns=["frame", "role"]),
            "queries as a manifest.*without role, frame",
        ),
        (
            "query_vectors",
            world.query_vectors[:-1],
            r"the 24 rows of queries, \[24, D\].*shape \(23, 5\)",
        ),
        (
            "database_vectors",
            world.database_vectors[0],
            r"the 90 rows of database.*shape \(5,\)",
        ),
        (
            "database_vectors",
            world.database_vectors[:, :4],
            "of one descriptor length D",
        ),
        ("database", world.database.assign(utm_east_m=9e5), "none of 24 quer"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_descriptors("pitts30k", **{**given, name: value})
