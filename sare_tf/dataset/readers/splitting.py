"""Splits and roles where the layout has none: at random, by group and seed."""

import array
import itertools
import operator
from collections.abc import Sequence

import numpy as np

from sare_tf.dataset.names import SPLITS
from sare_tf.dataset.readers import areas
from sare_tf.dataset.readers.collector import Collector
from sare_tf.dataset.sqlite_manifest import Group, SqliteManifest


def split_places(
    places: Sequence[str], *, fractions: Sequence[float], seed: int
) -> dict[str, str]:
    """Assigns places to train, val and test at random.

    Args:
        places: their names, sorted.
        fractions: shares of train, val and test; their sum is 1.
        seed: the same seed gives the same split.

    Returns:
        place -> split. A split with a share above 0 gets at least one place.

    Raises:
        ValueError: fractions that make no split, or fewer places than splits.
    """
    fractions = np.asarray(fractions, np.float64)
    if (
        fractions.shape != (len(SPLITS),)
        or (fractions < 0).any()
        or abs(fractions.sum() - 1) > 1e-6
    ):
        raise ValueError(
            "Expected three shares from 0 to 1, of train, val and test, with "
            f"sum 1. Received: split_fractions={fractions.tolist()}."
        )
    wanted = fractions > 0
    if len(places) < wanted.sum():
        raise ValueError(
            f"Expected at least {wanted.sum()} places, one for each split. "
            f"Received: {len(places)}. Add places, or set a share of "
            "--split_fractions to 0."
        )
    counts = np.maximum(np.floor(fractions * len(places)), wanted).astype(int)
    # The largest share takes what rounding leaves, or gives what it lacks.
    counts[np.argmax(fractions)] += len(places) - counts.sum()
    order = np.random.default_rng(seed).permutation(len(places))
    splits = np.repeat(SPLITS, counts)
    return {
        places[position]: str(split)
        for position, split in zip(order, splits, strict=True)
    }


def choose_splits(
    images: SqliteManifest,
    group: Group,
    *,
    fractions: Sequence[float],
    seed: int,
    splits: Sequence[str] | None = None,
) -> None:
    """Gives images a split; a group is in one split as a whole.

    Args:
        images: nothing is done if there are none.
        group: what they are grouped by.
        fractions: of `split_places`, which also says what is raised.
        seed: of `split_places`.
        splits: those whose images get another split; None: all images.
    """
    names = images.groups(group, splits=splits)
    if names:
        split_of = split_places(names, fractions=fractions, seed=seed)
        images.set_splits(split_of, group, splits=splits)


def choose_roles(
    images: SqliteManifest,
    group: Group,
    *,
    fraction: float,
    seed: int,
    splits: Sequence[str] | None = None,
) -> None:
    """Makes a share of each group's images queries, at random.

    Args:
        images: the images.
        group: what they are grouped by.
        fraction: share of queries. A group of two or more images has at least
            one query and one database image; a group of one has no query.
        seed: the same seed gives the same choice.
        splits: those whose images get a role; None: all images.

    Raises:
        ValueError: a fraction that is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(
            "Expected a share above 0 and below 1. Received: "
            f"query_fraction={fraction}."
        )
    rng = np.random.default_rng(seed)
    queries = array.array("q")
    members = images.members(group, splits=splits)
    for _, of_group in itertools.groupby(members, operator.itemgetter(0)):
        rows = [row for _, row in of_group]
        count = max(round(fraction * len(rows)), 1)
        order = rng.permutation(len(rows))
        for position in order[: min(count, len(rows) - 1)]:
            queries.append(rows[position])
    images.set_roles(queries, splits=splits)


def complete(
    collector: Collector,
    *,
    split_fractions: Sequence[float] | None,
    query_fraction: float | None,
    seed: int,
) -> None:
    """Gives images their split and role, where the layout has none.

    Where every image has coordinates, areas are split, and an image within
    50 m of another split is refused. Otherwise places are split.

    Args:
        collector: its images are completed.
        split_fractions: of `choose_splits`; None: the images have splits.
        query_fraction: of `choose_roles`; None: the images have roles.
        seed: of both.

    Raises:
        ValueError: images with neither all coordinates nor all places, or as
            `choose_splits` and `choose_roles` raise.
    """
    images = collector.images
    count = len(images)
    if not count or (split_fractions is None and query_fraction is None):
        return
    without_place, without_position = images.count_unknown()
    if without_place and without_position:
        raise ValueError(
            "Expected a position of every image, or a place of every image, to "
            f"choose splits and queries by. Received: {count} images, "
            "some with the one and some with the other. Add what is missing, "
            "or columns split and role."
        )
    group = Group.PLACE
    if not without_position:
        rows, *positions = images.positions(with_zone=False)
        images.set_areas(rows, areas.find_areas(*positions))
        group = Group.AREA
    if split_fractions is not None:
        choose_splits(images, group, fractions=split_fractions, seed=seed)
    if query_fraction is not None:
        choose_roles(
            images, Group.PLACE_IN_SPLIT, fraction=query_fraction, seed=seed
        )
    if split_fractions is not None and not without_position:
        near = areas.too_near(*positions, images.splits())
        collector.drop(
            rows[near],
            f"within {areas.APART_M:g} m of an image of another split",
        )
