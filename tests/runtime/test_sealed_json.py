"""JSON that notices damage to itself."""

import json

import pytest

from sare_tf.runtime import sealed_json

TYPES = {"count": int, "name": (str, type(None))}
CONTENT = {"name": None, "count": 3, "by_k": {1: 0.5, 5: 1.0, 10: [1, (2, 3)]}}


@pytest.fixture
def path(tmp_path):
    sealed_json.write(tmp_path / "a.json", CONTENT)
    return tmp_path / "a.json"


def read(path):
    return sealed_json.read(path, made_by="the command", types=TYPES)


def test_what_is_written_is_read_in_any_layout(path):
    expected = json.loads(json.dumps(CONTENT))
    assert read(path) == expected
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert read(path) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content | {"count": 4}, "content has changed"),
        (lambda content: content | {"more": 1}, "content has changed"),
        (lambda content: content | {"sha256": "0"}, "content has changed"),
        (lambda content: {"digests": {}}, "its own digest is missing"),
        (lambda content: {"a": [{"digests": {}}]}, "its own digest is missing"),
        (lambda content: {"name": None}, "lacks 'count'"),
        (lambda content: {"name": 1, "count": 3}, "holds name=1"),
        (lambda content: {"name": "", "count": True}, "holds count=True"),
        (lambda content: [content], "holds no object"),
    ],
)
def test_damage(path, change, message):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(
        ValueError, match=f"a.json as it was.*{message}.*run the command again"
    ):
        read(path)


def test_a_file_of_an_earlier_version(path):
    path.write_text('{"count": 3, "name": "a"}')
    assert read(path) == {"count": 3, "name": "a"}
