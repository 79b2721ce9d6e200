"""Batches of places that look alike but are apart, as CliqueMining draws them.

Source: Izquierdo and Civera, "Close, But Not There: Boosting Geographic
Distance Sensitivity in Visual Place Recognition", ECCV 2024, section 4. A place
of a batch is a clique: K images, each within the separation of every other.

For a batch, regions are drawn without repetition, with a probability in
proportion to their places. In a region,

1. a place is drawn, and `similar_places` more with a probability in proportion
   to the largest distance of a descriptor to that of the first, less the
   distance of the place's own;
2. cliques of K images of these places are taken one by one. The images of a
   clique, and all that are within the separation of one of them, are removed
   before the next is taken;
3. when no clique is left, the next region follows.

Here the regions are drawn again when all have been used, without the images
near those that the batch has; there, data has as many regions as needed.
"""

from collections.abc import Iterator, Sequence, Set

import numpy as np
from absl import logging
from scipy.spatial import cKDTree

from sare_tf.dataset import manifest
from sare_tf.training import place_batches
from sare_tf.training.place_batches import PlaceBatches
from sare_tf.training.place_samplers import Places, mean_descriptors


def cliques(places: Places) -> PlaceBatches:
    """Draws as many batches as the places would fill, each place once.

    Labels number the cliques of a batch.

    Raises:
        ValueError: images without coordinates, or no batch is filled.
    """
    if not manifest.has_coordinates(places.rows):
        unknown = int(places.rows["utm_east_m"].isna().sum())
        raise ValueError(
            "Expected coordinates of every image, to find cliques. Received: "
            f"{unknown} of {len(places.rows)} images without. Choose another "
            "--sampler."
        )
    rule = places.rule
    drawer = _Drawer(places)
    rng = np.random.default_rng(places.seed)
    count = max(1, drawer.num_places // rule.places_per_batch)
    drawn = [drawer.batch(rng) for _ in range(count)]
    full = [batch for batch in drawn if len(batch) == rule.places_per_batch]
    if not full:
        raise ValueError(
            f"Expected {rule.places_per_batch} cliques of "
            f"{rule.images_per_place} images in a batch, more than "
            f"{rule.separation_m} m apart. Received: {count} attempts, with at "
            f"most {max(map(len, drawn))} cliques among "
            f"{drawer.num_places} places. Lower --places_per_batch or "
            "--images_per_place, or raise --similar_places."
        )
    if len(full) < count:
        logging.warning(
            "Of %d batches, %d ran out of cliques and are left out.",
            count,
            count - len(full),
        )
    images = np.asarray(full, np.int64).reshape(len(full), -1)
    labels = np.arange(rule.places_per_batch).repeat(rule.images_per_place)
    return PlaceBatches(
        places.rows,
        images,
        np.tile(labels, (len(full), 1)),
        rule.images_per_place,
        0,
        0,
    )


class _Drawer:
    """Draws batches of cliques."""

    def __init__(self, places: Places):
        self._places = places
        numbers = places.numbers
        members = place_batches.images_of_places(numbers)
        self.num_places = len(members)
        self._members = members
        vectors = mean_descriptors(places, members, list(members))
        xy = manifest.coordinates(places.rows)
        # Images of other regions are apart, whatever their coordinates.
        grids = manifest.grids(places.rows)
        names = places.regions
        regions = grids if names is None else names
        by_region = [
            np.unique(numbers[regions == region])
            for region in sorted(set(regions))
        ]
        self._regions = [(own, vectors[own]) for own in by_region]
        self._trees = {}
        for grid in set(grids):
            rows = np.flatnonzero(grids == grid)
            self._trees[grid] = (rows, cKDTree(xy[rows]))
        self._xy, self._grids = xy, grids

    def batch(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Draws a batch; it is not full if the cliques run out.

        Returns:
            Images of each clique, int [K].
        """
        size = self._places.rule.places_per_batch
        counts = np.array([len(numbers) for numbers, _ in self._regions])
        batch, blocked, before = [], set(), -1
        while len(batch) < size and len(batch) > before:
            before = len(batch)
            order = rng.choice(
                len(counts), len(counts), replace=False, p=counts / counts.sum()
            )
            for region in order:
                drawn = self._draw_places(*self._regions[region], rng)
                images = np.concatenate([self._members[p] for p in drawn])
                images = [image for image in images if image not in blocked]
                for clique, neighbours in self._cliques(images, rng):
                    batch.append(clique)
                    blocked.update(neighbours)
                    if len(batch) == size:
                        return batch
        return batch

    def _draw_places(
        self,
        numbers: np.ndarray,
        vectors: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Draws a place of a region, and those that look like it."""
        first = rng.integers(len(numbers))
        cosines = (vectors @ vectors[first]).astype(np.float64)
        apart = np.sqrt(np.maximum(2.0 - 2.0 * cosines, 0.0))
        weights = apart.max() - apart
        weights[first] = 0.0
        count = min(self._places.similar_places, len(numbers) - 1)
        likely = np.flatnonzero(weights)
        if len(likely) > count:
            others = rng.choice(
                len(numbers), count, replace=False, p=weights / weights.sum()
            )
        else:
            # All that look alike at all, and any of the others.
            rest = np.delete(
                np.arange(len(numbers)), np.concatenate([likely, [first]])
            )
            others = [*likely, *rng.permutation(rest)][:count]
        return numbers[[first, *others]]

    def _cliques(
        self, images: list[int], rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields cliques of images, each with all images near it."""
        rule = self._places.rule
        images = np.asarray(images, np.int64)
        if len(images) < rule.images_per_place:
            return
        near = [set() for _ in images]
        pairs = cKDTree(self._xy[images]).query_pairs(rule.separation_m)
        for a, b in pairs:
            if self._grids[images[a]] == self._grids[images[b]]:
                near[a].add(b)
                near[b].add(a)
        left = set(range(len(images)))
        for start in rng.permutation(len(images)).tolist():
            if start not in left:
                continue
            clique = _clique(
                [start], near[start] & left, near, rule.images_per_place, rng
            )
            if clique is not None:
                for image in clique:
                    left -= near[image] | {image}
                yield images[clique], self._around(images[clique])

    def _around(self, clique: np.ndarray) -> np.ndarray:
        """Returns all images within the separation of one of a clique."""
        rows, tree = self._trees[self._grids[clique[0]]]
        around = tree.query_ball_point(
            self._xy[clique], self._places.rule.separation_m
        )
        return rows[np.unique(np.concatenate(around)).astype(int)]


def _clique(
    images: list[int],
    candidates: Set[int],
    near: Sequence[Set[int]],
    size: int,
    rng: np.random.Generator,
) -> list[int] | None:
    """Completes a clique by candidates that are near all of its images.

    None: there is none of this size.
    """
    if len(images) == size:
        return images
    candidates = set(candidates)
    for image in rng.permutation(sorted(candidates)).tolist():
        if len(images) + len(candidates) < size:
            return None
        clique = _clique(
            [*images, image], candidates & near[image], near, size, rng
        )
        if clique is not None:
            return clique
        candidates.discard(image)
    return None
