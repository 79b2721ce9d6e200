from toy_folders import column, touch, triples

from sare_tf.dataset import readers


def test_groups_by_name(tmp_path):
    touch(
        tmp_path,
        *("jpg/100000.jpg", "jpg/100001.jpg", "jpg/100002.JPG"),
        *("jpg/100100.jpg", "jpg/100101.jpg"),
        "jpg/100201.jpg",  # Its query is not downloaded.
        *("jpg/10010.jpg", "jpg/200000.jpg", "readme.txt"),
    )
    found = readers.read(tmp_path, reader="holidays")
    assert column(found, "role") == {
        "jpg/100000.jpg": "database",
        "jpg/100001.jpg": "database",
        "jpg/100002.JPG": "database",
        "jpg/100100.jpg": "database",
        "jpg/100101.jpg": "database",
        "jpg/100201.jpg": "database",
        "jpg/100000.jpg#query": "query",
        "jpg/100100.jpg#query": "query",
    }
    assert triples(found) == [
        ("jpg/100000.jpg#query", "jpg/100000.jpg", "junk"),
        ("jpg/100000.jpg#query", "jpg/100001.jpg", "positive"),
        ("jpg/100000.jpg#query", "jpg/100002.JPG", "positive"),
        ("jpg/100100.jpg#query", "jpg/100100.jpg", "junk"),
        ("jpg/100100.jpg#query", "jpg/100101.jpg", "positive"),
    ]
    assert found.source("jpg/100100.jpg#query").path == "jpg/100100.jpg"
    assert column(found, "place_id")["jpg/100101.jpg"] == "1001"
    assert found.rejected == [
        ("jpg/10010.jpg", "its name is not six digits from 1"),
        ("jpg/200000.jpg", "its name is not six digits from 1"),
        ("readme.txt", "not one of .jpg, .jpeg, .png"),
    ]
