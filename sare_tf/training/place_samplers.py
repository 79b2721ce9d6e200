"""Which places meet in a batch: the samplers of one part of a batch.

A sampler is a function of `Places` that draws batches in which each place is
at most once. Axis letters: N images, D descriptor length, P places of a batch
with K images each.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from absl import logging

from sare_tf.training import place_batches
from sare_tf.training.place_batches import PlaceBatches, PlaceBatchRule

# Names in a message.
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Places:
    """What a sampler draws from, and by what.

    Attributes:
        rows: N rows of a manifest, images that can be read.
        numbers: int64 [N], numbers of the images' places; -1: of no place.
        rule: which places and images make a batch.
        seed: seed of everything that is drawn.
        regions: str [N], names of the images' regions; None: one region.
        group: places of the group of the epoch, for `groups`.
        descriptors: [N, D], of unit length; None: as if all were alike.
        similar_places: see `cliques`.
    """

    rows: pd.DataFrame
    numbers: np.ndarray
    rule: PlaceBatchRule
    seed: int
    regions: np.ndarray | None = None
    group: np.ndarray | None = None
    descriptors: np.ndarray | None = None
    similar_places: int = 15


Sampler = Callable[[Places], PlaceBatches]


def random(places: Places) -> PlaceBatches:
    """Batches of any places that are apart, see `place_batches`."""
    return place_batches.plan_batches(
        places.rows,
        rule=places.rule,
        numbers=places.numbers,
        seed=places.seed,
    )


def regions(places: Places) -> PlaceBatches:
    """Batches of one region each; the regions come in a random order.

    Source: Ali-bey et al., "GSV-Cities: Toward Appropriate Supervised Visual
    Place Recognition", Neurocomputing 2022: batches of one city, whose places
    are harder to tell apart. There, a batch may hold the end of one city and
    the beginning of the next.

    Raises:
        ValueError: no region fills a batch.
    """
    rule = places.rule
    members, large = place_batches.members_of(places.numbers, rule)
    near = place_batches.near_places(
        places.rows, places.numbers, rule.separation_m
    )
    region_of = {place: places.regions[members[place][0]] for place in large}
    rng = np.random.default_rng(places.seed)
    full, small = [], []
    for region in sorted(set(region_of.values())):
        own = [place for place in large if region_of[place] == region]
        batches = place_batches.full_batches(
            rng.permutation(own), near, rule.places_per_batch
        )
        full += batches
        if not batches:
            small.append(f"{region} ({len(own)} places)")
    if not full:
        raise ValueError(
            f"Expected a region with {rule.places_per_batch} places that are "
            f"more than {rule.separation_m} m apart, with "
            f"{rule.images_per_place} images each. Received: "
            f"{_listed(small)}. Lower --places_per_batch, or choose another "
            "--region_by."
        )
    if small:
        logging.warning(
            "Regions too small for a batch of %d places, which are left out: "
            "%s.",
            rule.places_per_batch,
            _listed(small),
        )
    full = [full[number] for number in rng.permutation(len(full))]
    return place_batches.batches_of(
        places.rows, full, members, rule=rule, rng=rng
    )


def similar(places: Places) -> PlaceBatches:
    """Batches of places that look alike, each place once.

    A batch begins with a place that is drawn among those left, and takes the
    places left that look most like it and are apart from those it has.
    """
    rule = places.rule
    members, large = place_batches.members_of(places.numbers, rule)
    near = place_batches.near_places(
        places.rows, places.numbers, rule.separation_m
    )
    rng = np.random.default_rng(places.seed)
    vectors = mean_descriptors(places, members, large)
    left = rng.permutation(large)
    full = []
    while len(left) >= rule.places_per_batch:
        first = left[0]
        closeness = (vectors @ vectors[first])[left]
        closeness[0] = np.inf
        # The order among equals is random, as that of `left`.
        order = left[np.argsort(-closeness, kind="stable")]
        batch = _apart(order, near, rule.places_per_batch)
        if len(batch) == rule.places_per_batch:
            full.append(batch)
            left = left[~np.isin(left, batch)]
        else:
            left = left[1:]
    if not full:
        raise ValueError(
            f"Expected {rule.places_per_batch} places that are all more than "
            f"{rule.separation_m} m apart. Received: {len(large)} places with "
            f"{rule.images_per_place} images, too near each other. Lower "
            "--places_per_batch."
        )
    full = [full[number] for number in rng.permutation(len(full))]
    return place_batches.batches_of(
        places.rows, full, members, rule=rule, rng=rng
    )


def groups(places: Places) -> PlaceBatches:
    """Batches of classes of one group, which are apart by its definition."""
    is_in_group = np.isin(places.numbers, places.group)
    numbers = np.where(is_in_group, places.numbers, -1)
    members, large = place_batches.members_of(numbers, places.rule)
    rng = np.random.default_rng(places.seed)
    full = place_batches.full_batches(
        rng.permutation(large), None, places.rule.places_per_batch
    )
    return place_batches.batches_of(
        places.rows, full, members, rule=places.rule, rng=rng
    )


def mean_descriptors(
    places: Places, members: dict[int, np.ndarray], large: Sequence[int]
) -> np.ndarray:
    """Returns the mean descriptor of each place, float32 [C, D].

    They are of unit length; zeros for places that are not in `large`, and for
    all if there are no descriptors.
    """
    given = places.descriptors
    length = 1 if given is None else given.shape[1]
    means = np.zeros((max(members) + 1, length), np.float32)
    if given is not None:
        for place in large:
            mean = given[members[place]].astype(np.float32).mean(axis=0)
            means[place] = mean / max(np.linalg.norm(mean), 1e-12)
    return means


def region_names(rows: pd.DataFrame, *, by: str) -> np.ndarray:
    """Returns the names of the images' regions, str [N].

    Args:
        rows: N rows of a manifest.
        by: "folder", the first folder of image_id that is not the same for all
            images; or a column of the manifest.

    Raises:
        ValueError: images that are of no region, or all of one.
    """
    if by == "folder":
        folders = [name.split("/")[:-1] for name in rows["image_id"]]
        depth = min(map(len, folders))
        names = next(
            (
                [folder[level] for folder in folders]
                for level in range(depth)
                if len({folder[level] for folder in folders}) > 1
            ),
            [""] * len(rows),
        )
    else:
        names = rows[by].tolist()
    names = np.asarray(names, object)
    count = len(set(names))
    if count < 2 or (names == "").any():
        raise ValueError(
            "Expected the region of every image, and several regions. "
            f"Received: region_by={by!r}, {count} regions such as "
            f"{_listed(sorted(set(names)))!r} of {len(rows)} images. Choose "
            "another --region_by, or --sampler=random: all places are of one "
            "region."
        )
    return names


def check_regions(
    rows: pd.DataFrame, numbers: np.ndarray, names: np.ndarray
) -> None:
    """Refuses places that are in several regions.

    Raises:
        ValueError: names one of them.
    """
    table = pd.DataFrame({"place": numbers, "region": names})
    counts = table.groupby("place")["region"].nunique()
    torn = counts.index[counts > 1]
    if len(torn):
        one = numbers == torn[0]
        raise ValueError(
            "Expected each place in one region. Received: "
            f"{len(torn)} places in several, such as that of "
            f"{rows['image_id'][one].iloc[0]!r} in "
            f"{_listed(sorted(set(names[one])))}. Choose another --region_by."
        )


def _apart(
    order: np.ndarray, near: list[np.ndarray] | None, size: int
) -> list[int]:
    """Takes places in order that are not near those taken before."""
    taken, blocked = [], set()
    for place in order:
        if place in blocked:
            continue
        taken.append(place)
        if near:
            blocked.update(near[place])
        if len(taken) == size:
            break
    return taken


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
