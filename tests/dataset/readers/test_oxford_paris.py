import pytest
from toy_folders import column, touch, triples

from sare_tf.dataset import readers


@pytest.fixture
def root(tmp_path):
    """Oxford: a prefix in the query; images and lists in folders."""
    touch(
        tmp_path,
        *(f"oxbuild_images/all_souls_{n:06d}.jpg" for n in range(4)),
        # Paris: a folder for each landmark.
        "paris/defense/paris_defense_000605.jpg",
    )
    gt = tmp_path / "gt_files_170407"
    gt.mkdir()
    for name, text in {
        "all_souls_1_query": "oxc1_all_souls_000001 136.5 34.1 648.5 955.7\n",
        "all_souls_1_good": "all_souls_000001\n",
        "all_souls_1_ok": "all_souls_000002\nparis_louvre_000136\n",
        "all_souls_1_junk": "all_souls_000003\n",
        "defense_1_query": "paris_defense_000605 1.0 2.0 9.0 8.0",
        "defense_1_good": "",
        "defense_1_ok": "paris_defense_000605\n\n",
        "defense_1_junk": "",
    }.items():
        (gt / f"{name}.txt").write_text(text)
    return tmp_path


def test_queries_are_parts_of_database_images(root):
    found = readers.read(root, reader="oxford_paris")
    query = "oxbuild_images/all_souls_000001.jpg#xywh=136,34,512,922"
    paris = "paris/defense/paris_defense_000605.jpg"
    roles = column(found, "role")
    assert roles[query] == roles[f"{paris}#xywh=1,2,8,6"] == "query"
    assert list(roles.values()).count("database") == 5
    assert triples(found) == [
        (query, "oxbuild_images/all_souls_000001.jpg", "positive"),
        (query, "oxbuild_images/all_souls_000002.jpg", "positive"),
        (query, "oxbuild_images/all_souls_000003.jpg", "junk"),
        (f"{paris}#xywh=1,2,8,6", paris, "positive"),
    ]
    assert found.source(query).box == (136, 34, 648, 956)
    assert found.rejected == []


def test_a_query_without_its_image(root):
    (root / "oxbuild_images/all_souls_000001.jpg").unlink()
    found = readers.read(root, reader="oxford_paris")
    assert len(found.relations) == 1
    assert found.rejected == [
        (
            "oxc1_all_souls_000001",
            "named in all_souls_1_query.txt, but no such file",
        )
    ]


def test_a_second_copy_is_refused(root):
    touch(root, "thumbnails/all_souls_000002.JPG")
    found = readers.read(root, reader="oxford_paris")
    assert found.rejected == [
        (
            "thumbnails/all_souls_000002.JPG",
            "of the same name as oxbuild_images/all_souls_000002.jpg",
        )
    ]


def test_lists_that_are_absent_or_damaged(root):
    gt = root / "gt_files_170407"
    (gt / "defense_1_ok.txt").unlink()
    with pytest.raises(ValueError, match=r"defense_1_ok\.txt.*No such file"):
        readers.read(root, reader="oxford_paris")
    for text in ("paris_defense_000605 1 2 9", "a 1 2 x 4", ""):
        (gt / "defense_1_query.txt").write_text(text)
        with pytest.raises(ValueError, match="Expected a name, left, top"):
            readers.read(root, reader="oxford_paris")


def test_images_alone(tmp_path):
    touch(tmp_path, "oxbuild_images/all_souls_000000.jpg")
    with pytest.raises(ValueError, match=r"1 images and no list. Unpack"):
        readers.read(tmp_path, reader="oxford_paris")
