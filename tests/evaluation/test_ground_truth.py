"""Every protocol against loops written from its definition; official counts."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
from paths import SHARED

from sare_tf.dataset import manifest
from sare_tf.evaluation import ground_truth, metrics, protocols
from sare_tf.search import exact_search

SPECS = SHARED / "data" / "netvlad_specs"
needs_specs = pytest.mark.skipif(
    not SPECS.is_dir(), reason="needs the official dbStruct files"
)
RELATIONS = ("positive", "easy", "hard", "junk")


def _table(count: int, **columns) -> pd.DataFrame:
    """A manifest of `count` rows with these columns."""
    unknown = {
        name: np.full(count, default)
        if dtype != "str"
        else np.full(count, default or "", object)
        for name, (dtype, default, *_) in manifest.COLUMNS.items()
    }
    return pd.DataFrame({**unknown, **columns})


class World:
    """Random images with everything that a protocol may ask for."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.queries = self._images(24, "query")
        self.database = self._images(90, "database")
        # Half of the queries are each tenth frame, so that some are asked.
        self.queries.loc[:11, "frame"] = 5 + 10 * self.rng.integers(0, 6, 12)
        # Panoramas of three images each, in no order.
        panoramas = self.rng.permutation(np.arange(90) // 3)
        self.database["panorama_id"] = [f"p{n}" for n in panoramas]
        kinds = self.rng.integers(0, 12, (24, 90))
        self.relations = pd.DataFrame(
            [
                (f"query{q}", f"database{d}", RELATIONS[kinds[q, d]])
                for q, d in zip(*np.nonzero(kinds < 4), strict=True)
                if q  # The first query has no relation.
            ]
            # Of another split.
            + [("elsewhere", "database3", "positive")],
            columns=["query", "database", "relation"],
        )
        self.kind = {
            (q, d): RELATIONS[kinds[q, d]]
            for q, d in zip(*np.nonzero(kinds < 4), strict=True)
            if q
        }
        self.query_vectors = self._unit(24)
        self.database_vectors = self._unit(90)

    def _images(self, count: int, role: str) -> pd.DataFrame:
        rng = self.rng
        subtasks = np.array(["all", "all d2n", "all s2w d2n", "s2w"], object)
        return _table(
            count,
            image_id=np.array([f"{role}{n}" for n in range(count)], object),
            role=np.full(count, role, object),
            # Whole metres, so that 25 m exactly occurs: 7, 24 and 15, 20.
            utm_east_m=rng.integers(0, 100, count) + 500_000.0,
            utm_north_m=rng.integers(0, 100, count) + 4_500_000.0,
            place_id=rng.integers(0, 12, count).astype(str).astype(object),
            heading_deg=rng.integers(0, 360, count).astype(float),
            timestamp=rng.choice(["201012", "201203", "201305"], count).astype(
                object
            ),
            sequence_id=rng.choice(["a", "b"], count).astype(object),
            frame=rng.integers(5, 60, count),
            subtasks=rng.choice(subtasks, count),
        )

    def _unit(self, count: int) -> np.ndarray:
        vectors = self.rng.normal(size=(count, 5))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32)

    def metres(self, q: int, d: int) -> float:
        query, image = self.queries.iloc[q], self.database.iloc[d]
        return (
            (query.utm_east_m - image.utm_east_m) ** 2
            + (query.utm_north_m - image.utm_north_m) ** 2
        ) ** 0.5

    def ranking(self, q: int) -> list[int]:
        """All database images, nearest first."""
        far = [
            sum(
                (float(a) - float(b)) ** 2
                for a, b in zip(self.query_vectors[q], vector, strict=True)
            )
            for vector in self.database_vectors
        ]
        return sorted(range(len(far)), key=lambda d: (np.float32(far[d]), d))


def _degrees(a: float, b: float) -> float:
    apart = abs(a - b)
    return min(apart, 360 - apart)


def _frames_apart(world: World, q: int, d: int) -> float:
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


def _by_definition(world, name, most, *, heading_deg=0.0, subtask="all"):
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
        if leaves_out and not positives:
            continue
        ranking = cut(world, q, world.ranking(q), most)
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
    relations = None if protocol.rule == "frames" else world.relations
    asked = ground_truth.asked(protocol, world.queries)
    vectors = world.query_vectors[asked]
    judged = ground_truth.judge(
        protocol, world.queries[asked], world.database, relations=relations
    )
    searched = len(world.database)
    if judged.allowed is not None:
        searched = judged.allowed.sum()
    found, distances = exact_search.nearest(
        vectors,
        world.database_vectors,
        min(searched, ground_truth.depth(protocol, judged, most)),
        allowed=judged.allowed,
    )
    rows, distances = ground_truth.rank(judged, found, distances, most)
    assert rows.shape == distances.shape == (asked.sum(), most)
    np.testing.assert_array_equal(np.isinf(distances), rows < 0)
    ranks = metrics.first_rank(exact_search.hits(rows, judged.positives))
    found = metrics.within(ranks[judged.counted], range(1, most + 1))
    return found.mean(axis=0), judged, vectors


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_recall_equals_a_loop_from_the_definition(name, seed):
    world = World(seed)
    numbers = {"radius": {"radius_m": 12.0}, "frames": {"frames": 3}}
    # 7: the suppression of Tokyo 24/7 looks at 84 of 90 images, the filter of
    # Tokyo Time Machine at 70.
    recall, *_ = _by_sare_tf(world, name, 7, **numbers.get(name, {}))
    expected, _ = _by_definition(world, name, 7)
    np.testing.assert_allclose(recall, expected, rtol=0, atol=1e-12)
    assert 0 < expected[-1]


@pytest.mark.parametrize(
    ("name", "radius_m"), [("radius", 12.0), ("msls", 25.0)]
)
def test_positives_by_heading(name, radius_m):
    world = World(0)
    recall, *_ = _by_sare_tf(
        world, name, 9, heading_deg=40.0, radius_m=radius_m
    )
    expected, _ = _by_definition(world, name, 9, heading_deg=40.0)
    np.testing.assert_allclose(recall, expected, rtol=0, atol=1e-12)
    assert (expected != _by_definition(world, name, 9)[0]).any()


@pytest.mark.parametrize("subtask", ["d2n", "s2w"])
def test_subtasks_choose_queries_and_database(subtask):
    world = World(0)
    recall, judged, _ = _by_sare_tf(world, "msls", 9, subtask=subtask)
    expected, _ = _by_definition(world, "msls", 9, subtask=subtask)
    np.testing.assert_allclose(recall, expected, rtol=0, atol=1e-12)
    assert 0 < judged.allowed.sum() < 90


def test_msls_leaves_out_only_queries_without_a_positive():
    queries = _table(
        3, utm_east_m=[0.0, 26.0, 500.0], utm_north_m=[0.0, 0.0, 0.0]
    )
    database = _table(2, utm_east_m=[25.0, 60.0], utm_north_m=[0.0, 0.0])
    protocol = protocols.choose("msls")
    # Without any subtask in the manifest, all is of "all".
    assert ground_truth.asked(protocol, queries).all()
    judged = ground_truth.judge(protocol, queries, database)
    assert judged.counted.tolist() == [True, True, False]
    assert judged.allowed.all()
    judged = ground_truth.judge(protocols.choose("radius"), queries, database)
    assert judged.counted.all()


FULL = [name for name, some in protocols.PROTOCOLS.items() if some.full_ranking]


@pytest.mark.parametrize("name", FULL)
def test_mean_average_precision_equals_a_loop_over_the_ranking(name):
    world = World(0)
    _, judged, vectors = _by_sare_tf(world, name, 9)
    precisions = []
    for query in np.flatnonzero(judged.counted):
        right, junk = judged.positives[query], judged.junk[query]
        (ranks,) = exact_search.ranks_of(
            vectors[query : query + 1],
            world.database_vectors,
            [np.append(right, junk)],
            block=17,
        )
        right, junk = ranks[: len(right)], ranks[len(right) :]
        ahead = (junk[None] < right[:, None]).sum(axis=1)
        precisions.append(metrics.average_precision(right + 1 - ahead))
    _, expected = _by_definition(world, name, 9)
    np.testing.assert_allclose(np.mean(precisions), expected, atol=1e-12)
    assert set(FULL) >= {"oxford5k", "holidays", "rparis6k_hard"}


def test_every_tenth_frame_is_counted_from_the_first():
    protocol = protocols.choose("nordland_vprbench")
    frames = _table(25, frame=np.arange(25) + 3)
    asked = ground_truth.asked(protocol, frames)
    assert np.flatnonzero(asked).tolist() == [0, 10, 20]
    # Those that are left are all asked.
    assert ground_truth.asked(protocol, frames[asked]).all()


def test_suppression_by_hand():
    database = _table(6, panorama_id=np.array(list("abbcab"), object))
    protocol = protocols.PROTOCOLS["tokyo247"]
    database["utm_east_m"] = database["utm_north_m"] = 0.0
    judged = ground_truth.judge(protocol, database[:1], database)
    found = np.array([[1, 2, 5, 0, 4, 3]])
    rows, distances = ground_truth.rank(
        judged, found, np.arange(6, dtype=np.float32)[None], 4
    )
    # b, then a, then c; there is no fourth panorama.
    assert rows.tolist() == [[1, 0, 3, -1]]
    assert distances.tolist() == [[0, 3, 5, np.inf]]


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("tokyo247", {}, "panorama_id of every image.*tokyo247. Rec.*: 2 im"),
        ("tokyotm", {}, "timestamp of every image .* Received: 4 images"),
        ("nordland", {}, "a frame of every image.* Received: 4 images"),
        ("list", {}, "listed pairs for the protocol list. Received: records"),
        ("place", {}, "Expected a place_id of every image"),
    ],
)
def test_what_is_missing_is_named(name, columns, message):
    rows = _table(2, utm_east_m=[0.0, 1.0], utm_north_m=[0.0, 1.0])
    with pytest.raises(ValueError, match=message):
        ground_truth.judge(protocols.PROTOCOLS[name], rows, rows)


def test_headings_subtasks_and_lists_that_do_not_fit():
    rows = _table(2, utm_east_m=[0.0, 1.0], utm_north_m=[0.0, 1.0], frame=1)
    protocol = protocols.choose("radius", heading_deg=40.0)
    with pytest.raises(ValueError, match="Expected heading_deg.*: 4 images"):
        ground_truth.judge(protocol, rows, rows)
    protocol = protocols.choose("msls", subtask="d2n")
    with pytest.raises(ValueError, match="subtask d2n in .*: none of 2"):
        ground_truth.asked(protocol, rows)
    relations = World(0).relations
    with pytest.raises(ValueError, match="records that list which images"):
        ground_truth.judge(
            protocols.choose("nordland"), rows, rows, relations=relations
        )


def _spec(name: str) -> dict[str, np.ndarray]:
    struct = scipy.io.loadmat(SPECS / f"{name}.mat", squeeze_me=True)
    struct = struct["dbStruct"]
    return {field: struct[field].item() for field in struct.dtype.names}


def _located(names: np.ndarray, utm: np.ndarray, **columns) -> pd.DataFrame:
    return _table(
        len(names),
        image_id=names,
        utm_east_m=utm[0].astype(np.float64),
        utm_north_m=utm[1].astype(np.float64),
        **columns,
    )


@needs_specs
@pytest.mark.parametrize(
    ("name", "protocol", "database_size", "queries"),
    [
        ("pitts30k_train", "pitts30k", 10000, 7416),
        ("pitts30k_val", "pitts30k", 10000, 7608),
        ("pitts30k_test", "pitts30k", 10000, 6816),
        ("pitts250k_train", "pitts250k", 91464, 7824),
        ("pitts250k_val", "pitts250k", 78648, 7608),
        ("pitts250k_test", "pitts250k", 83952, 8280),
        ("tokyoTM_train", "tokyotm", 49104, 7277),
        ("tokyoTM_val", "tokyotm", 49056, 7186),
        ("tokyo247", "tokyo247_no_suppression", 75984, 315),
    ],
)
def test_all_official_queries_have_a_positive(
    name, protocol, database_size, queries
):
    spec = _spec(name)
    columns = [{}, {}]
    if protocol == "tokyotm":
        columns = [
            {"timestamp": spec[field].astype(str).astype(object)}
            for field in ("qTimeStamp", "dbTimeStamp")
        ]
    query_rows = _located(spec["qImageFns"], spec["utmQ"], **columns[0])
    rows = _located(spec["dbImageFns"], spec["utmDb"], **columns[1])
    judged = ground_truth.judge(protocols.PROTOCOLS[protocol], query_rows, rows)
    usable = sum(len(some) > 0 for some in judged.positives)
    assert (len(rows), len(query_rows), usable) == (
        database_size,
        queries,
        queries,
    )


@needs_specs
def test_panoramas_of_tokyo_are_twelve_rows_each():
    spec = _spec("tokyo247")
    names = spec["dbImageFns"]
    base = [Path(name).name for name in names]
    rows = _located(
        names,
        spec["utmDb"],
        panorama_id=np.array([name[:22] for name in base], object),
    )
    queries = _located(spec["qImageFns"][:1], spec["utmQ"][:, :1])
    judged = ground_truth.judge(protocols.PROTOCOLS["tokyo247"], queries, rows)
    # MATLAB: floor((row - 1) / 12), rows from 1 in the order of the file.
    np.testing.assert_array_equal(judged.panoramas, np.arange(len(names)) // 12)
    assert judged.panoramas.max() + 1 == 6332
    assert len({str(Path(name).parent) for name in names}) == 6254
