"""Places of images, and batches of places to train on.

A place batch has P places with K images each. Every other image of its place
attracts an image, and every image of another place repels it; so a batch must
hold no two images that are neither surely one place nor surely two.

Which images show one place:

- those of one `place_id`, where every image has one;
- else a group of images that stands by itself: linked by steps of at most the
  place's radius, no two farther apart than it, and, where every image has a
  heading, no two turned by more than a sector;
- groups that are larger are cut: into square cells whose diagonal is the
  radius, and into sectors of headings, as what is seen facing the other way is
  not the same place. Cells and sectors are those of Berton et al., "Rethinking
  Visual Geo-localization for Large-Scale Applications", CVPR 2022, section 3.2.

Which places may meet in a batch: where every image has coordinates, those with
no two images within the separation, inclusive. So neighbouring cells, other
headings and places beside each other are left to other batches.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.spatial import cKDTree

from sare_tf.dataset import manifest

# Berton et al. 2022, section 4: their alpha.
_SECTOR_DEG = 30.0


@dataclasses.dataclass(frozen=True)
class PlaceBatchRule:
    """Which places and images make a batch.

    Attributes:
        places_per_batch: P.
        images_per_place: K, drawn without repetition from the place's images.
            Places with fewer images are left out. With 1 there is no image
            of the same place in a batch: for losses that learn a direction
            of each place, such as `PlaceCosFaceLoss`.
        radius_m: radius of a place, see `number_places`.
        separation_m: images of two places in a batch are farther apart, where
            every image has coordinates.

    Raises:
        ValueError: P below 2, or K below 1.
    """

    places_per_batch: int = 16
    images_per_place: int = 4
    radius_m: float = 10.0
    separation_m: float = 25.0

    def __post_init__(self):
        if self.places_per_batch < 2 or self.images_per_place < 1:
            raise ValueError(
                "Expected at least 2 places in a batch, which repel each "
                "other, and an image of each. "
                f"Received: places_per_batch={self.places_per_batch}, "
                f"images_per_place={self.images_per_place}."
            )


@dataclasses.dataclass(frozen=True)
class PlaceBatches:
    """The batches of one epoch.

    Attributes:
        rows: rows of a manifest.
        images: int64 [M, P * K], positions in `rows`; the K images of a place
            stand together.
        labels: int64 [M, P * K], numbers of places as `number_places` has them.
        images_per_place: K.
        small_places: number of places that are left out, because they have
            fewer than K images.
        left_over: number of places that did not fill a batch.
        positive_weights: float32 [M, P * K, K], weights of an image and the K
            images of its place; None for equal ones.
    """

    rows: pd.DataFrame
    images: np.ndarray
    labels: np.ndarray
    images_per_place: int
    small_places: int
    left_over: int
    positive_weights: np.ndarray | None = None


def number_places(rows: pd.DataFrame, *, radius_m: float = 10.0) -> np.ndarray:
    """Numbers the places of images.

    Args:
        rows: N rows of a manifest.
        radius_m: where coordinates decide, no two images of a place are
            farther apart.

    Returns:
        int64 [N], from 0, without gaps.

    Raises:
        ValueError: images without place_id and without coordinates, or a
            radius that is not positive.
    """
    if not radius_m > 0:
        raise ValueError(
            f"Expected a positive radius. Received: radius_m={radius_m}."
        )
    known = rows["place_id"].to_numpy(object) != ""
    if known.all():
        keys = [rows["place_id"].to_numpy(str)]
    elif manifest.has_coordinates(rows):
        keys = _groups_and_cells(rows, radius_m)
    else:
        raise ValueError(
            "Expected a place_id or coordinates of every image. Received: "
            f"{len(rows)} images, {(~known).sum()} without place_id. Use one "
            "folder per place, or a layout with coordinates."
        )
    table = pd.DataFrame(dict(enumerate(keys)))
    return table.groupby(list(table.columns)).ngroup().to_numpy()


def plan_batches(
    rows: pd.DataFrame,
    *,
    rule: PlaceBatchRule,
    numbers: np.ndarray | None = None,
    seed: int = 0,
) -> PlaceBatches:
    """Plans an epoch: every place at most once, in batches that are full.

    Places come in a random order, each into the first batch that has room and
    no image near it. Batches that are not full in the end are left out; another
    seed leaves out others.

    Args:
        rows: N rows of a manifest.
        rule: which places and images make a batch.
        numbers: int [N], numbers of the images' places; None: those of
            `number_places`.
        seed: seed of the order and of the images.

    Returns:
        The batches.

    Raises:
        ValueError: images without places, or too few places for one batch.
    """
    if numbers is None:
        numbers = number_places(rows, radius_m=rule.radius_m)
    members, large = members_of(numbers, rule)
    counts = (
        f"{len(large)} of {len(members)} places with {rule.images_per_place} "
        "images"
    )
    near = near_places(rows, numbers, rule.separation_m)
    rng = np.random.default_rng(seed)
    full = full_batches(rng.permutation(large), near, rule.places_per_batch)
    if not full:
        raise ValueError(
            f"Expected {rule.places_per_batch} places that are all more than "
            f"{rule.separation_m} m apart. Received: {counts}, too near each "
            "other. Lower places_per_batch or separation_m."
        )
    return batches_of(rows, full, members, rule=rule, rng=rng)


def images_of_places(numbers: np.ndarray) -> dict[int, np.ndarray]:
    """Returns the images of each place.

    Args:
        numbers: int [N], numbers of the images' places; -1: of no place.
    """
    images = pd.Series(np.arange(len(numbers))).groupby(numbers).indices
    return {place: rows for place, rows in images.items() if place >= 0}


def members_of(
    numbers: np.ndarray, rule: PlaceBatchRule
) -> tuple[dict[int, np.ndarray], list[int]]:
    """Returns the images of each place, and the places that have enough.

    Args:
        numbers: int [N], numbers of the images' places; -1: of no place.
        rule: which places and images make a batch.

    Raises:
        ValueError: too few places for one batch.
    """
    members = images_of_places(numbers)
    large = [
        place
        for place, images in members.items()
        if len(images) >= rule.images_per_place
    ]
    if len(large) < rule.places_per_batch:
        raise ValueError(
            f"Expected at least {rule.places_per_batch} places with "
            f"{rule.images_per_place} images each. Received: {len(large)} of "
            f"{len(members)} places with {rule.images_per_place} images. Lower "
            "places_per_batch or images_per_place, or add images."
        )
    return members, large


def batches_of(
    rows: pd.DataFrame,
    full: Sequence[Sequence[int]],
    members: Mapping[int, np.ndarray],
    *,
    rule: PlaceBatchRule,
    rng: np.random.Generator,
) -> PlaceBatches:
    """Draws the images of batches of places.

    Args:
        rows: N rows of a manifest.
        full: the places of each batch, at least one batch.
        members: images of each place, positions in `rows`.
        rule: which places and images make a batch.
        rng: source of chance.
    """
    images = [
        [
            rng.choice(members[place], rule.images_per_place, replace=False)
            for place in batch
        ]
        for batch in full
    ]
    large = sum(
        len(images) >= rule.images_per_place for images in members.values()
    )
    return PlaceBatches(
        rows,
        np.asarray(images, np.int64).reshape(len(full), -1),
        np.repeat(np.asarray(full, np.int64), rule.images_per_place, axis=1),
        rule.images_per_place,
        len(members) - large,
        large - len(full) * rule.places_per_batch,
    )


def full_batches(
    places: Iterable[int], near: Sequence[np.ndarray] | None, size: int
) -> list[list[int]]:
    """Puts each place into the first batch with room and no place near it.

    Args:
        places: numbers of places, in order.
        near: of `near_places`.
        size: places of a batch.

    Returns:
        The batches that are full.
    """
    full, unfinished = [], {}
    batch_of = {}
    for count, place in enumerate(places):
        neighbours = near[place] if near else ()
        taken = {batch_of.get(neighbour) for neighbour in neighbours}
        batch = next((b for b in unfinished if b not in taken), count)
        batch_of[place] = batch
        unfinished.setdefault(batch, []).append(place)
        if len(unfinished[batch]) == size:
            full.append(unfinished.pop(batch))
    return full


def _groups_and_cells(rows: pd.DataFrame, radius_m: float) -> list[np.ndarray]:
    """Keys that the images of one place have in common, arrays [N]."""
    table = pd.DataFrame(_coordinates(rows), columns=["east", "north"])
    points, which = np.unique(table, axis=0, return_inverse=True)
    linked = _within(points, radius_m)
    _, groups = sparse.csgraph.connected_components(linked, directed=False)
    groups = groups[which.reshape(-1)]
    headings = rows["heading_deg"].to_numpy(np.float64) % 360.0
    if not np.isfinite(headings).all():
        headings = np.zeros(len(rows))
    # From the group's first image, so that north is no border.
    _, first = np.unique(groups, return_index=True)
    turned = headings - headings[first][groups]
    table["turned"] = (turned + 180.0) % 360.0 - 180.0
    by_group = table.groupby(groups)
    extent = by_group.transform("max") - by_group.transform("min")
    whole = np.hypot(extent["east"], extent["north"]) <= radius_m
    whole &= extent["turned"] <= _SECTOR_DEG
    side = radius_m / np.sqrt(2.0)
    cells = [
        np.floor(table["east"] / side),
        np.floor(table["north"] / side),
        np.floor(headings / _SECTOR_DEG),
    ]
    return [groups, *(np.where(whole, 0.0, cell) for cell in cells)]


def _within(points: np.ndarray, distance_m: float) -> sparse.csr_array:
    """bool [n, n]: which points are within a distance, inclusive."""
    pairs = cKDTree(points).query_pairs(distance_m, output_type="ndarray")
    ones = np.ones(len(pairs), bool)
    shape = (len(points), len(points))
    close = sparse.csr_array((ones, (pairs[:, 0], pairs[:, 1])), shape)
    return close + close.T + sparse.eye_array(len(points), dtype=bool)


def near_places(
    rows: pd.DataFrame, numbers: np.ndarray, separation_m: float
) -> list[np.ndarray] | None:
    """Finds the places with an image within the separation, and itself.

    Args:
        rows: N rows of a manifest.
        numbers: int [N], numbers of the images' places.
        separation_m: distance, inclusive.

    Returns:
        Numbers of places, for each place; None if an image has no coordinates.
    """
    if not manifest.has_coordinates(rows):
        return None
    points, which = np.unique(_coordinates(rows), axis=0, return_inverse=True)
    close = _within(points, separation_m)
    holds = sparse.csr_array(
        (np.ones(len(rows), bool), (numbers, which.reshape(-1)))
    )
    near = sparse.csr_array(holds @ close @ holds.T)
    return np.split(near.indices, near.indptr[1:-1])


def _coordinates(rows: pd.DataFrame) -> np.ndarray:
    return rows[["utm_east_m", "utm_north_m"]].to_numpy(np.float64)
