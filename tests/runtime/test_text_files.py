import pytest

from sare_tf.runtime import text_files

TEXT = "--dataset=Stra\u00dfe\n\n  b \U0001f5fa"


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (b"\xef\xbb\xbf", "utf-8"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
        (b"\xff\xfe\0\0", "utf-32-le"),
        (b"\0\0\xfe\xff", "utf-32-be"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_editors_and_shells_write(tmp_path, mark, encoding, end):
    path = tmp_path / "text"
    path.write_bytes(mark + TEXT.replace("\n", end).encode(encoding))
    assert list(text_files.read_lines(path)) == TEXT.split("\n")


@pytest.mark.parametrize("content", [None, b"caf\xe9", b"\xff\xfea"])
def test_what_cannot_be_read(tmp_path, content):
    path = tmp_path / "text"
    if content:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="Expected a text file.*text'.*UTF-8"):
        list(text_files.read_lines(path))


def test_an_empty_file(tmp_path):
    (tmp_path / "text").touch()
    assert list(text_files.read_lines(tmp_path / "text")) == []
