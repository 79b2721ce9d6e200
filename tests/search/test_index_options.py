"""Options of an index."""

import pytest

from sare_tf.search.options import IndexFolderOptions, IndexOptions


def test_paths_are_separated_by_commas(tmp_path):
    options = IndexFolderOptions(index=f"{tmp_path}/a,{tmp_path}/b")
    assert options.index_paths == [f"{tmp_path}/a", f"{tmp_path}/b"]
    (tmp_path / "a,b").mkdir()
    options = IndexFolderOptions(index=tmp_path / "a,b")
    assert options.index_paths == [f"{tmp_path}/a,b"]


@pytest.mark.parametrize(
    ("text", "shard"), [("0/1", (0, 1)), ("7/8", (7, 8)), ("10/12", (10, 12))]
)
def test_a_shard_is_a_number_and_a_count(text, shard):
    options = IndexOptions(
        index="index", records="records", export="export", index_shard=text
    )
    assert options.shard == shard
