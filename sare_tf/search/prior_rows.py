"""Which images of a database agree with a `Prior`."""

import functools

import numpy as np
import pandas as pd
from absl import logging

from sare_tf.search import geography
from sare_tf.search.prior import Prior, span_of

# How an error names the columns of an argument.
_POSITIONS = "a position with a UTM zone and latitude band"


class PriorRows:
    """The images of an index, by position, time, condition and place.

    Positions and times are converted when a prior first asks for them.

    Args:
        images: N rows of a manifest.
    """

    def __init__(self, images: pd.DataFrame):
        self._images = images
        self._last: tuple[Prior, np.ndarray] | None = None

    def allowed(self, prior: Prior) -> np.ndarray:
        """Marks the images that agree with a prior.

        Args:
            prior: the prior.

        Returns:
            bool [N], with at least one True.

        Raises:
            ValueError: no image agrees, or none has the column that the prior
                asks for.
        """
        if self._last is None or self._last[0] != prior:
            self._last = prior, self._marked(prior)
        return self._last[1]

    def _marked(self, prior: Prior) -> np.ndarray:
        marked = np.ones(len(self._images), bool)
        if prior.near or prior.region:
            known = np.isfinite(self._degrees).all(axis=1)
            _check_known(known, prior, _POSITIONS)
        if prior.near:
            metres = geography.metres_from(prior.near, self._degrees)
            marked &= metres <= prior.within_m
        if prior.region:
            marked &= geography.inside(prior.polygons, self._degrees)
        if prior.taken_from or prior.taken_until:
            first, last = self._spans.T
            _check_known(last >= 0, prior, "a time that can be read")
            begin, end = prior.time_span
            marked &= (last >= begin) & (first <= end)
        for column, values in (
            ("condition", prior.conditions),
            ("place_id", prior.place_ids),
        ):
            if values:
                of_images = self._images[column]
                _check_known(of_images.ne("").to_numpy(), prior, f"a {column}")
                _check_values(of_images, values)
                marked &= of_images.isin(values).to_numpy()
        if not marked.any():
            raise ValueError(
                f"Expected images {prior.as_text()}. Received: none of the "
                f"{len(marked)} images of the index. Widen the prior."
            )
        return marked

    @functools.cached_property
    def _degrees(self) -> np.ndarray:
        return geography.degrees_of_images(self._images)

    @functools.cached_property
    def _spans(self) -> np.ndarray:
        """First and last second of each image, int64 [N, 2]; -1 if unknown."""
        codes, texts = pd.factorize(self._images["timestamp"])
        spans = [span_of(text) or (-1, -1) for text in texts]
        return np.array(spans, np.int64).reshape(-1, 2)[codes]

    @property
    def conditions(self) -> list[str]:
        """All conditions of images, sorted."""
        return sorted(set(self._images["condition"]) - {""})

    @property
    def has_places(self) -> bool:
        """Whether the place of an image is known."""
        return bool(self._images["place_id"].ne("").any())

    @property
    def has_degrees(self) -> bool:
        """Whether the latitude and longitude of an image are known."""
        return bool(np.isfinite(self._degrees).any())

    @property
    def has_times(self) -> bool:
        """Whether the time of an image can be read."""
        return bool((self._spans[:, 1] >= 0).any())


def _check_known(known: np.ndarray, prior: Prior, what: str) -> None:
    """Refuses a prior on what no image has; warns if some lack it."""
    if not known.any():
        raise ValueError(
            f"Expected images with {what} for a search {prior.as_text()}. "
            f"Received: an index of {len(known)} images, none of which has "
            "one. Search without this prior, or index records that have it."
        )
    missing = len(known) - int(known.sum())
    if missing:
        logging.warning(
            "%d of %d images are not searched, because they lack %s.",
            missing,
            len(known),
            what,
        )


def _check_values(of_images: pd.Series, values: tuple[str, ...]) -> None:
    known = set(of_images) - {""}
    unknown = [value for value in values if value not in known]
    if unknown:
        shown = sorted(known)[:8]
        raise ValueError(
            f"Expected values of {of_images.name} that images of the index "
            f"have: {', '.join(shown)}{' and more' * (len(known) > 8)}. "
            f"Received: {', '.join(map(repr, unknown[:5]))}"
            f"{' and more' * (len(unknown) > 5)}."
        )
