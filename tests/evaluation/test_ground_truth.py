"""Ground truth by hand, and the official counts of positives."""

from pathlib import Path

import numpy as np
import pandas as pd
import protocol_world
import pytest
import scipy.io
from paths import SHARED
from protocol_world import table

from sare_tf.evaluation import ground_truth, protocols
from sare_tf.search import exact_search

SPECS = SHARED / "data" / "netvlad_specs"
needs_specs = pytest.mark.skipif(
    not SPECS.is_dir(), reason="needs the official dbStruct files"
)


def test_msls_leaves_out_only_queries_without_a_positive():
    queries = table(
        3, utm_east_m=[0.0, 26.0, 500.0], utm_north_m=[0.0, 0.0, 0.0]
    )
    database = table(2, utm_east_m=[25.0, 60.0], utm_north_m=[0.0, 0.0])
    protocol = protocols.choose("msls")
    # Without any subtask in the manifest, all is of "all".
    assert ground_truth.asked(protocol, queries).all()
    judged = ground_truth.judge(protocol, queries, database)
    assert judged.counted.tolist() == [True, True, False]
    assert judged.allowed.all()
    judged = ground_truth.judge(protocols.choose("radius"), queries, database)
    assert judged.counted.all()


def test_every_tenth_frame_is_counted_from_the_first():
    protocol = protocols.choose("nordland_vprbench")
    frames = table(25, frame=np.arange(25) + 3)
    asked = ground_truth.asked(protocol, frames)
    assert np.flatnonzero(asked).tolist() == [0, 10, 20]
    # Those that are left are all asked.
    assert ground_truth.asked(protocol, frames[asked]).all()


def test_suppression_by_hand():
    database = table(6, panorama_id=np.array(list("abbcab"), object))
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
    rows = table(2, utm_east_m=[0.0, 1.0], utm_north_m=[0.0, 1.0])
    with pytest.raises(ValueError, match=message):
        ground_truth.judge(protocols.PROTOCOLS[name], rows, rows)


def test_headings_subtasks_and_lists_that_do_not_fit():
    rows = table(2, utm_east_m=[0.0, 1.0], utm_north_m=[0.0, 1.0], frame=1)
    protocol = protocols.choose("radius", heading_deg=40.0)
    with pytest.raises(ValueError, match="Expected heading_deg.*: 4 images"):
        ground_truth.judge(protocol, rows, rows)
    protocol = protocols.choose("msls", subtask="d2n")
    with pytest.raises(ValueError, match="subtask d2n in .*: none of 2"):
        ground_truth.asked(protocol, rows)
    relations = protocol_world.World(0).relations
    with pytest.raises(ValueError, match="records that list which images"):
        ground_truth.judge(
            protocols.choose("nordland"), rows, rows, relations=relations
        )


def _spec(name: str) -> dict[str, np.ndarray]:
    struct = scipy.io.loadmat(SPECS / f"{name}.mat", squeeze_me=True)
    struct = struct["dbStruct"]
    return {field: struct[field].item() for field in struct.dtype.names}


def _located(names: np.ndarray, utm: np.ndarray, **columns) -> pd.DataFrame:
    return table(
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


def _random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_nearest_positives_equal_a_loop():
    rng = np.random.default_rng(0)
    queries, database = _random(0, 30, 4), _random(1, 50, 4)
    positives = [rng.permutation(50)[: rng.integers(0, 4)] for _ in range(30)]
    rows, distances = exact_search.nearest(queries, database, 5)
    nearest, squared = ground_truth.nearest_positives(
        queries, database, positives, rows=rows, distances=distances
    )
    for query, right in enumerate(positives):
        far = {
            row: sum(
                (float(a) - float(b)) ** 2
                for a, b in zip(queries[query], database[row], strict=True)
            )
            for row in right.tolist()
        }
        best = min(far, key=far.get, default=-1)
        assert nearest[query] == best
        expected = far.get(best, np.nan)
        np.testing.assert_allclose(squared[query], expected, rtol=1e-6)
    is_near = (rows == nearest[:, None]).any(axis=1)
    # Positives among the neighbours, beyond them, and none at all.
    assert is_near.any()
    assert (~is_near & (nearest >= 0)).any()
    assert (nearest < 0).any()


def test_metres_by_hand():
    queries = table(
        2, utm_east_m=[0.0, 0.0], utm_north_m=[0.0, 0.0], utm_zone="33U"
    )
    database = table(
        4,
        utm_east_m=[3.0, 3.0, 3.0, np.nan],
        utm_north_m=[4.0, 4.0, 4.0, 4.0],
        # 33V is north of 33U in the same zone; 10S is elsewhere.
        utm_zone=["33U", "33V", "10S", "33U"],
    )
    rows = np.array([[0, 1, 2, 3, -1]] * 2)
    np.testing.assert_array_equal(
        ground_truth.metres(queries, database, rows),
        [[5, 5, np.inf, np.nan, np.inf]] * 2,
    )
