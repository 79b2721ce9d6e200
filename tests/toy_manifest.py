"""Manifests in memory, of rows that hold what is known."""

from sare_tf.dataset.sqlite_manifest import Listing


def make(rows):
    listing = Listing()
    listing.add_all(rows)
    listing.check()
    return listing.table()
