"""Shards are decided by names and sizes alone, and change little."""

import os
import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from toy_search import jpeg

from sare_tf.dataset.readers.collector import Reading, Source
from sare_tf.dataset.sqlite_manifest import SqliteManifest
from sare_tf.records import shard_building, shard_plan
from sare_tf.records.shard_plan import Preparation

MEBIBYTE = 1 << 20
AS_IS = Preparation()


def reading(root, names, *, sources=None, **columns):
    """Images in the place that their folder names; or with other columns."""
    images = SqliteManifest()
    images.add_all(
        {"image_id": name, "split": "train", "role": "database"}
        | {"place_id": name.partition("/")[0]}
        | columns
        for name in names
    )
    return Reading(images, root, [], sources=sources or {})


def plan(root, sizes, monkeypatch, **options):
    """Shards of files with sizes, which are not on disk."""
    monkeypatch.setattr(
        shard_plan,
        "_status",
        lambda path: (sizes[os.path.relpath(path, root)], 7),
    )
    options = {"shard_mebibytes": 1, "preparation": AS_IS} | options
    return shard_plan.make(reading(root, sizes), **options).shards


def toy_sizes(seed=0, places=300):
    rng = np.random.default_rng(seed)
    return {
        f"p{place:04d}/{view}.jpg": int(rng.integers(20_000, 60_000))
        for place in range(places)
        for view in range(int(rng.integers(1, 6)))
    }


def test_shards_hold_all_in_order_and_have_about_the_size(
    tmp_path, monkeypatch
):
    sizes = toy_sizes()
    shards = plan(tmp_path, sizes, monkeypatch)
    names = [name for shard in shards for name in shard.read_rows()["image_id"]]
    assert names == sorted(sizes)
    held = [shard.read_rows()["bytes"].sum() for shard in shards]
    assert all(MEBIBYTE / 2 <= size <= 2 * MEBIBYTE for size in held)
    assert [shard.name for shard in shards] == [
        f"train-database-{number:05d}-of-{len(shards):05d}.tfrecord"
        for number in range(len(shards))
    ]
    places = [set(shard.read_rows()["place_id"]) for shard in shards]
    assert sum(map(len, places)) == len(set.union(*places))


def test_a_place_is_never_cut(tmp_path, monkeypatch):
    sizes = {f"p/{view:03d}.jpg": MEBIBYTE for view in range(9)}
    sizes |= {"a/0.jpg": 10, "q/0.jpg": 10}
    # The small places are less than half a shard.
    assert len(plan(tmp_path, sizes, monkeypatch)) == 1
    sizes |= {"a/1.jpg": MEBIBYTE}
    first, second = plan(tmp_path, sizes, monkeypatch)
    assert set(first.read_rows()["place_id"]) == {"a"}
    assert set(second.read_rows()["place_id"]) == {"p", "q"}


def test_images_without_place_and_position_are_cut_anywhere(
    tmp_path, monkeypatch
):
    sizes = {f"{view:03d}.jpg": MEBIBYTE // 4 for view in range(40)}
    monkeypatch.setattr(shard_plan, "_status", lambda _: (MEBIBYTE // 4, 7))
    plan = shard_plan.make(
        reading(tmp_path, sizes, place_id=""),
        shard_mebibytes=1,
        preparation=AS_IS,
    )
    assert len(plan.shards) >= 5


@pytest.mark.parametrize("seed", range(3))
def test_added_images_change_few_shards(tmp_path, monkeypatch, seed):
    """Also in the front, and where they make another shard necessary."""
    sizes = toy_sizes(seed)
    before = {s.digest for s in plan(tmp_path, sizes, monkeypatch)}
    for place in ("p0000", "p0150a", "p0299"):
        added = {f"{place}/new{view}.jpg": 50_000 for view in range(3)}
        after = {s.digest for s in plan(tmp_path, sizes | added, monkeypatch)}
        assert 1 <= len(after - before) <= 3
        assert len(before) > 20
    sizes.pop("p0100/0.jpg")
    after = {s.digest for s in plan(tmp_path, sizes, monkeypatch)}
    assert 1 <= len(after - before) <= 3


def test_memory_does_not_grow_with_the_images(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_plan, "_status", lambda _: (1 << 10, 7))

    def peak(count):
        """Bytes of Python and numpy, which hold nothing of the database."""
        names = (f"p{view // 10}/{view}.jpg" for view in range(count))
        tracemalloc.start()
        try:
            plan = shard_plan.make(
                reading(tmp_path, names), shard_mebibytes=1, preparation=AS_IS
            )
            assert sum(shard.count for shard in plan.shards) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # imports
    # Twice: a shard may be of twice the size.
    assert peak(15_000) < 2 * peak(2_000)


def test_a_digest_holds_all_that_counts(tmp_path):
    path = tmp_path / "p/0.jpg"
    path.parent.mkdir()
    path.write_bytes(jpeg(0, 0))

    def digest(preparation=AS_IS, sources=None, **columns):
        plan = shard_plan.make(
            reading(tmp_path, ["p/0.jpg"], sources=sources, **columns),
            shard_mebibytes=1,
            preparation=preparation,
        )
        [shard] = plan.shards
        return shard.digest

    digests = [
        digest(),
        digest(preparation=Preparation(verify=False)),
        digest(preparation=Preparation(longest_side=9)),
        digest(preparation=Preparation(jpeg_quality=9)),
        digest(sources={"p/0.jpg": Source("p/0.jpg", (0, 0, 1, 1))}),
        digest(sources={"p/0.jpg": Source("p/0.jpg", (0, 0, 1, 2))}),
        digest(heading_deg=1.0),
        digest(heading_deg=1.0 + 1e-15),
        digest(condition="night"),
    ]
    assert digest() == digests[0]
    path.write_bytes(path.read_bytes() + b"x")
    digests.append(digest())
    os.utime(path, ns=(5, 5))
    digests.append(digest())
    path.unlink()
    digests.append(digest())
    assert len(set(digests)) == len(digests)


def test_a_shard_travels(tmp_path):
    """As an executor sends it: pickled, with no rows but its own."""
    names = [f"p{number}/{number}.jpg" for number in range(2000)]
    for name in names:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(jpeg(0, 0).ljust(10_000))
    shards = shard_plan.make(
        reading(tmp_path, names), shard_mebibytes=1, preparation=AS_IS
    ).shards
    assert len(shards) > 5
    with pytest.raises(TypeError, match="cannot pickle 'sqlite3.Connection'"):
        pickle.dumps(shards[3])
    sent = [pickle.dumps(shard.with_rows()) for shard in shards]
    assert max(map(len, sent)) < sum(map(len, sent)) / 4
    folder = tmp_path / "built"
    folder.mkdir()
    received = pickle.loads(sent[3])
    built = shard_building.build(
        received, root=tmp_path, folder=folder, preparation=AS_IS
    )
    pd.testing.assert_frame_equal(received.rows, shards[3].read_rows())
    assert built == shard_building.find(shards[3], folder)
    assert built.count == len(received.rows)
