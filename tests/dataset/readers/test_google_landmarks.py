import pytest
from toy_folders import column, touch, triples

from sare_tf.dataset import readers

IDS = [f"{n:x}{n + 1:x}{n + 2:x}0123456789abc" for n in range(10)]
SOLUTION = (
    "id,images,Usage\n"
    f"0123456789abcdef,{'a' * 16} {'b' * 16},Public\n"
    f"1123456789abcdef,{'b' * 16},Private\n"
    "2123456789abcdef,None,Ignored\n"
    f"3123456789abcdef,{'a' * 16},Private\n"
)


def path(folder, image):
    return "/".join([folder, *image[:3], f"{image}.jpg"])


def train(root):
    (root / "train.csv").write_text(
        "id,url,landmark_id\n"
        + "".join(f"{i},http://x/{i},{n // 3}\n" for n, i in enumerate(IDS))
        + "ffffffffffffffff,http://x/f,9\n"
    )
    return touch(root, *(path("train", image) for image in IDS))


def test_training_images(tmp_path):
    found = readers.read(train(tmp_path), reader="google_landmarks")
    places = column(found, "place_id")
    assert places[path("train", IDS[0])] == "0"
    assert places["train/4/5/6/4560123456789abc.jpg"] == "1"
    assert found.rejected == [
        (
            "train/f/f/f/ffffffffffffffff.jpg",
            "named in the list, but no such file",
        )
    ]
    assert found.relations is None
    table = found.manifest
    # 0.6 and 0.15 of 4 landmarks: 3 and 1; none is test.
    assert table.groupby("place_id")[
        "split"
    ].first().value_counts().to_dict() == {
        "train": 3,
        "val": 1,
    }
    assert table.groupby("place_id")["split"].nunique().max() == 1
    queries = table[table["role"] == "query"]["place_id"].value_counts()
    assert queries.to_dict() == {"0": 1, "1": 1, "2": 1}  # "3" has one image.


def test_the_clean_list_counts(tmp_path):
    root = train(tmp_path)
    (root / "train_clean.csv").write_text(
        f"landmark_id,images\n0,{IDS[0]} {IDS[2]}\n5,{IDS[3]} {IDS[4]}\n"
    )
    found = readers.read(root, reader="google_landmarks")
    assert sorted(column(found, "place_id").values()) == ["0", "0", "5", "5"]


@pytest.mark.parametrize("below", [False, True])
def test_index_and_queries(tmp_path, below):
    """Tables at the top, or in the folders of their images."""
    index, test = ("index/", "test/") if below else ("", "")
    touch(tmp_path, path("index", "a" * 16), path("index", "b" * 16))
    touch(
        tmp_path,
        *(path("test", f"{n}123456789abcdef") for n in range(3)),
    )
    (tmp_path / f"{index}index.csv").write_text(
        f"id\n{'a' * 16}\n{'b' * 16}\n{'c' * 16}\n"
    )
    (tmp_path / f"{test}retrieval_solution_v2.1.csv").write_text(SOLUTION)
    found = readers.read(tmp_path, reader="google_landmarks")
    assert column(found, "role") == {
        path("index", "a" * 16): "database",
        path("index", "b" * 16): "database",
        "test/0/1/2/0123456789abcdef.jpg": "query",
        "test/1/1/2/1123456789abcdef.jpg": "query",
    }
    assert set(column(found, "split").values()) == {"test"}
    assert triples(found) == [
        (
            "test/0/1/2/0123456789abcdef.jpg",
            path("index", "a" * 16),
            "positive",
        ),
        (
            "test/0/1/2/0123456789abcdef.jpg",
            path("index", "b" * 16),
            "positive",
        ),
        (
            "test/1/1/2/1123456789abcdef.jpg",
            path("index", "b" * 16),
            "positive",
        ),
    ]
    assert [name for name, _ in found.rejected] == [
        path("index", "c" * 16),
        "test/3/1/2/3123456789abcdef.jpg",
    ]


def test_an_id_that_leads_away(tmp_path):
    root = train(tmp_path)
    (root / "index.csv").write_text("id\n../../secret\n")
    found = readers.read(root, reader="google_landmarks")
    assert "leaves the dataset's folder by .." in dict(found.rejected).values()


def test_no_share_of_training(tmp_path):
    with pytest.raises(ValueError, match="a share above 0 of train or val"):
        readers.read(
            train(tmp_path),
            reader="google_landmarks",
            split_fractions=(0, 0, 1),
        )
