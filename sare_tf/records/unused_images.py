"""Finds images that training or evaluation will ignore or count as misses.

They are found in the plan of a build by SQL, and for coordinates in strips of
the map, so that memory does not grow with the number of images. `positives`
says what a positive is.
"""

import array
from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

from sare_tf.dataset import manifest, positives
from sare_tf.dataset.names import SPLITS
from sare_tf.records.sqlite_plan import KeptImages

# Queries of a strip of the map, and database images read beside them at a time.
_STRIP_IMAGES = 1 << 14
# The warning of a query that no database image answers.
WITHOUT_POSITIVE = "query without a positive in the database"
# Errors of the distances of a tree, relative and in metres.
_ERROR, _ERROR_M = 1e-9, 1e-6


def check_rule(images: KeptImages, *, rule: str) -> None:
    """Refuses a rule of positives that the images do not allow.

    Args:
        images: all images of a plan.
        rule: of `positives.find_positives`.

    Raises:
        ValueError: the rule is unknown, or needs coordinates, places or a list
            that are not there.
    """
    for split in SPLITS:
        _choose_rule(images, split, images.roles(split), rule)


def find(
    images: KeptImages, *, rule: str, radius_m: float
) -> Iterator[tuple[str, str]]:
    """Finds places, images and splits that a user should know of.

    Args:
        images: the images.
        rule: of `positives.find_positives`.
        radius_m: of `positives.find_positives`.

    Yields:
        The name of a place, image or split, and the warning.

    Raises:
        ValueError: as `check_rule` does.
    """
    for split, place in images.places_of_one_image():
        yield f"{split}/{place}", "place with one image"
    for split in SPLITS:
        roles = images.roles(split)
        if not roles:
            yield split, "split without an image"
            continue
        for role in ("query", "database"):
            if all(role != existing for existing, *_ in roles):
                yield split, f"split without a {role} image"
        rule_of_split = _choose_rule(images, split, roles, rule)
        if not rule_of_split:
            yield (
                split,
                "split where nothing says what matches",
            )
            continue
        if rule_of_split == "radius":
            misses = _without_near(images, split, radius_m)
        else:
            misses = images.without_positive(split, rule_of_split)
        for image_id in misses:
            yield image_id, WITHOUT_POSITIVE


def _choose_rule(
    images: KeptImages, split: str, roles: list[tuple], rule: str
) -> str:
    """Returns the rule for a split; empty where nothing says what matches.

    Args:
        images: the images.
        split: the split.
        roles: its roles, of `KeptImages.roles`.
        rule: of `positives.find_positives`.

    Raises:
        ValueError: as `check_rule` does.
    """
    positives.check_rule(rule)
    without = {
        "radius": sum(row[2] for row in roles),
        "place": sum(row[3] for row in roles),
        "list": int(not images.has_relations),
    }
    automatic = positives.automatic_rule(
        is_listed=images.has_listed_query(split),
        is_located=not without["radius"],
    )
    if automatic == "place" and without["place"]:
        return ""
    if rule == "auto":
        rule = automatic
    if without[rule]:
        raise positives.missing_for(rule, without[rule])
    return rule


def _without_near(
    images: KeptImages, split: str, radius_m: float
) -> Iterator[str]:
    """Yields queries of a split without a database image within a radius."""
    images.index_by_east()
    grids = {}
    for zone in images.zones(split):
        grids.setdefault(manifest.grid(zone), []).append(zone)
    if len(grids.keys() - {""}) < 2:  # An unknown zone is the only one.
        grids = {"": sum(grids.values(), [])}
    far = array.array("q")
    for zones in grids.values():
        far.extend(_far(images, split, zones, radius_m))
    for position in sorted(far):
        yield images.image_id(position)


def _far(
    images: KeptImages, split: str, zones: list[str], radius_m: float
) -> Iterator[int]:
    """Yields positions of queries far from all database images of zones."""
    queries = images.queries(split, zones)
    reach_m = radius_m * (1 + _ERROR) + _ERROR_M
    while strip := queries.fetchmany(_STRIP_IMAGES):
        positions, *points = np.array(strip, np.float64).T
        points = np.stack(points, axis=1)
        database = images.database_between(
            split, zones, (points[0, 0] - reach_m, points[-1, 0] + reach_m)
        )
        is_far = np.ones(len(points), bool)
        while block := database.fetchmany(_STRIP_IMAGES):
            rows = np.flatnonzero(is_far)
            near = _any_near(points[rows], np.array(block), radius_m, reach_m)
            is_far[rows[near]] = False
        yield from positions[is_far].astype(np.int64).tolist()


def _any_near(
    points: np.ndarray, others: np.ndarray, radius_m: float, reach_m: float
) -> np.ndarray:
    """Finds points [B, 2] that are within a radius of another, bool [B]."""
    distances_m, _ = cKDTree(others).query(points, distance_upper_bound=reach_m)
    near = distances_m <= radius_m * (1 - _ERROR) - _ERROR_M
    # Where the distances of the tree are close to the radius, by exact ones.
    close = np.flatnonzero((distances_m <= reach_m) & ~near)
    exact = positives.within(points[close], others, radius_m)
    near[close] = [len(rows) > 0 for rows in exact]
    return near
