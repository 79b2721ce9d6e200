"""Lists of tuples: written, read, and found in a manifest."""

import numpy as np
import pandas as pd
import pytest

from sare_tf.dataset import tuple_lists

ROWS = pd.DataFrame({"image_id": ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]})


def test_a_list_is_found_again(tmp_path):
    positions = np.array([[3, 0, 1, 2], [0, 2, 3, 1]])
    table = tuple_lists.make(positions, ROWS)
    assert list(table.columns) == [
        *("query", "positive", "negative_1", "negative_2")
    ]
    assert table.iloc[0].tolist() == ["d.jpg", "a.jpg", "b.jpg", "c.jpg"]
    tuple_lists.write(table, tmp_path / "list.parquet")
    table.to_csv(tmp_path / "list.CSV", index=False)
    for name in ("list.parquet", "list.CSV"):
        found = tuple_lists.find(tuple_lists.read(tmp_path / name), ROWS)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, positions)


def test_names_that_look_like_something_else_stay_names(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("query,positive,negative_1\n007,NA,1e3\n")
    assert tuple_lists.read(path).iloc[0].tolist() == ["007", "NA", "1e3"]


def test_a_list_that_went_through_other_programs(tmp_path):
    """pandas adds row numbers, Windows writes UTF-16."""
    path = tmp_path / "list.csv"
    path.write_text(",query,positive,negative_1\n0,a,é,nan\n", "utf-16")
    assert tuple_lists.read(path).iloc[0].tolist() == ["a", "é", "nan"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("query,positive\na,b\n", "with 1 rows and the columns"),
        ("query,positive,negative_2\na,b,c\n", "negative_2'"),
        ("positive,query,negative_1\na,b,c\n", "Expected one row per tuple"),
        ("query,positive,negative_1\n", "with 0 rows"),
        ("query,positive,negative_1\na,b,c\na,,c\n", "'' as positive of tuple"),
        ('query,positive,negative_1\n"a', "can be read"),
        ("", "can be read"),
    ],
)
def test_a_list_of_another_form(tmp_path, text, message):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        tuple_lists.read(path)


def test_parquet_of_another_kind(tmp_path):
    path = tmp_path / "list.parquet"
    path.write_bytes(b"query,positive,negative_1\n")
    with pytest.raises(ValueError, match="can be read"):
        tuple_lists.read(path)
    numbers = pd.DataFrame([[1, 2, 3]], columns=tuple_lists.columns(3))
    numbers.to_parquet(path)
    with pytest.raises(ValueError, match="Received.* with .*1.* as query of"):
        tuple_lists.read(path)


def test_no_list(tmp_path):
    with pytest.raises(FileNotFoundError, match="Training leaves one"):
        tuple_lists.read(tmp_path / "list.csv")
    (tmp_path / "list.txt").touch()
    with pytest.raises(ValueError, match=r"as .parquet or .csv"):
        tuple_lists.read(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["a.jpg", "b.jpg", "c.jpg"], ["a.jpg", "x.jpg", "y"]], "and 1 other"),
        ([["a.jpg", "b.jpg", "x.jpg"]], "'x.jpg' as negative_1 of tuple 0"),
        ([["a.jpg", "b.jpg", "b.jpg"]], "Expected different images"),
        ([["b.jpg", "b.jpg", "a.jpg"]], r"\['b.jpg', 'b.jpg', 'a.jpg'\] as"),
    ],
)
def test_images_that_cannot_be_a_tuple(rows, message):
    table = pd.DataFrame(rows, columns=tuple_lists.columns(3))
    with pytest.raises(ValueError, match=message):
        tuple_lists.find(table, ROWS)
