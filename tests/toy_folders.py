"""Datasets on disk, in the layouts that readers read; no image is one."""

from pathlib import Path


def touch(root, *names):
    """Makes files that look like images by their names."""
    for name in names:
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return Path(root)


def write(root, **texts):
    """Makes text files; `__` in a name stands for a folder, `_csv` for .csv."""
    for name, text in texts.items():
        stem, _, extension = name.replace("__", "/").rpartition("_")
        path = Path(root) / f"{stem}.{extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Path(root)


def column(reading, name):
    """image_id -> value of one column."""
    table = reading.manifest
    return dict(zip(table["image_id"], table[name].tolist(), strict=True))


def triples(reading):
    """The relations as tuples."""
    return list(reading.relations.itertuples(index=False, name=None))
