"""Manifests in memory, of rows that hold what is known."""

from sare_tf.dataset.sqlite_manifest import SqliteManifest


def make(rows):
    images = SqliteManifest()
    images.add_all(rows)
    images.check()
    return images.table()


def rows(east, *, role="database", prefix="a", **columns):
    return [
        {
            "image_id": f"{prefix}{number}",
            "split": "test",
            "role": role,
            "utm_east_m": value,
            "utm_north_m": 4_500_000.0,
            **columns,
        }
        for number, value in enumerate(east)
    ]
