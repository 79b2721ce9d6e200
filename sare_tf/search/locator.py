"""Photographs -> the places that they may show, for `locate` and its page.

`search.confidence` defines the confidence of an answer, and
`search.calibration` how often answers of a confidence are right.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sare_tf import serving
from sare_tf.dataset import image_refusal, manifest
from sare_tf.search import confidence, geography
from sare_tf.search.answer_scores import Found
from sare_tf.search.answers import Answer, Match, Searched
from sare_tf.search.descriptor_arrays import check_unit
from sare_tf.search.index_folders import IndexPath
from sare_tf.search.judging import Judge, Judgement
from sare_tf.search.opened_index import Index
from sare_tf.search.options import RerankOptions
from sare_tf.search.prior import Prior
from sare_tf.search.reranker import NewOrder, Reranker


class Locator:
    """An index and its model, which locate photographs.

    Args:
        index: folder of the index, or several, as `Index.open` takes them.
        export: folder of the export that the index was built with, or a server
            of it (`serving.load`).
        exact: search exactly, without ScaNN.
        check: compare the files of the index with their digests.
        positive_radius_m: images at most this far apart show the same place,
            and so do images of the same place_id.
        reject_below: answers of a confidence that is right less often than
            this are rejected: the photograph is declared not to be in the
            database. 0: none is.
        rerank: how matches are ordered anew; None: they are not.

    Raises:
        FileNotFoundError: index or export do not exist.
        ConnectionError: a part of the index does not answer.
        ValueError: they do not belong together, or answers shall be rejected
            and the index has no calibration that fits.

    Call arguments:
        encoded: bytes of B photographs.
        k: matches to find for each; all images if the index has fewer.
        leave_out: for each photograph the image_id of its own image in the
            index, which is no match of it, or ""; None: none has one. The only
            image that is searched is a match of itself.
        prior: searches only the images that agree with it. Calibrations were
            measured without one, so the answers have no reliability.

    Output:
        B answers.

    Raises:
        FileNotFoundError: index or export does not exist.
        ValueError: one of them is damaged, the index was built with another
            export, no image agrees with a prior, or answers shall be rejected
            beside a prior.
        ConnectionError: a part of the index does not answer.
    """

    def __init__(
        self,
        *,
        index: IndexPath | Sequence[IndexPath],
        export: str | Path | serving.Server,
        exact: bool = False,
        check: bool = True,
        positive_radius_m: float = 25.0,
        reject_below: float = 0.0,
        rerank: RerankOptions | None = None,
    ):
        # The model is loaded while the files of the index are read.
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(serving.load, export)
            self.index = Index.open(index, exact=exact, check=check)
            self._servable = loading.result()
        self.index.check_export(self._servable)
        rows = self.index.manifest
        self.places = confidence.Places(rows, radius_m=positive_radius_m)
        self._rows = rows[["image_id", "place_id", "utm_zone"]]
        self._reranker = None
        if rerank is not None:
            self._reranker = Reranker(rerank, self.index)
        self._judge = Judge(
            self.index,
            places=self.places,
            radius_m=positive_radius_m,
            reject_below=reject_below,
            ranking=self._reranker and self._reranker.ranking,
        )

    @property
    def servable(self) -> serving.Servable | serving.RemoteServable:
        """The model."""
        return self._servable

    def __call__(
        self,
        encoded: Sequence[bytes],
        *,
        k: int,
        leave_out: Sequence[str] | None = None,
        prior: Prior | None = None,
    ) -> list[Answer]:
        where = self._where(prior)
        descriptors, errors = self.embed(encoded)
        answers = [Answer(error=error) for error in errors]
        good = [number for number, error in enumerate(errors) if not error]
        count = len(self.index.manifest) if where is None else int(where.sum())
        depth = max(k, confidence.DEPTH)
        if self._reranker is not None:
            depth = max(depth, self._reranker.top)
        searched = searched_in(self.index, depth, prior=prior, where=where)
        own = np.full(len(good), -1)
        if leave_out is not None and count > 1:
            known = pd.Index(self._rows["image_id"])
            own = known.get_indexer([leave_out[number] for number in good])
            if where is not None:
                own[~where[own]] = -1
        has_own = own >= 0
        rows, distances = confidence.without(
            *self.index.search(
                descriptors[good], depth + has_own.any(), where=where
            ),
            own,
        )
        retrieved = Found.retrieved(rows, distances)
        answered, details = retrieved, [NewOrder.unchanged()] * len(good)
        if self._reranker is not None:
            images = [encoded[number] for number in good]
            answered, details = self._reranker(images, retrieved)
        judgements = self._judge(
            retrieved,
            answered,
            count=count - has_own,
            of_part=prior is not None,
        )
        for line, number in enumerate(good):
            answers[number] = self._answer(
                answered.take([line]),
                details[line],
                judgements[line],
                k=k,
                searched=searched,
            )
        return answers

    def _answer(
        self,
        found: Found,
        new_order: NewOrder,
        judgement: Judgement,
        *,
        k: int,
        searched: Searched,
    ) -> Answer:
        """Makes the answer of a photograph.

        Args:
            found: its images, the best first.
            new_order: what re-ranking says of them.
            judgement: how sure it is, and where it is.
            k: matches of the answer, at most.
            searched: what was searched.
        """
        (rows,), (distances,) = found.rows, found.squared_distances
        (same,) = self.places.same_as_first(found.rows)
        return Answer(
            matches=[
                self.match(
                    rows[i], distances[i], same[i], **new_order.details(i)
                )
                for i in range(min(k, len(rows)))
                if rows[i] >= 0
            ],
            confidence=judgement.confidence,
            searched=searched,
            reliability=judgement.reliability,
            rejected=judgement.rejected,
            rejection=self._judge.rejection,
            position=judgement.position,
            reranked=new_order.text,
        )

    def _where(self, prior: Prior | None) -> np.ndarray | None:
        """Returns the images to search, bool [N]; None: all."""
        if prior is None:
            return None
        if self._judge.rejection is not None:
            raise ValueError(
                "Expected no prior with --reject_below: how often answers are "
                "right was measured without one. Received: a search "
                f"{prior.as_text()}. Leave out one of the two."
            )
        return self.index.prior_rows.allowed(prior)

    def embed(self, encoded: Sequence[bytes]) -> tuple[np.ndarray, list[str]]:
        """Returns descriptors [B, D], and for each why it is unusable, or "".

        Args:
            encoded: bytes of B photographs.
        """
        descriptors, valid = self._servable(list(encoded))
        errors = [""] * len(encoded)
        for number, image in enumerate(encoded):
            if not valid[number]:
                errors[number] = image_refusal.why_not(image)
                continue
            try:
                check_unit(descriptors[number : number + 1], ["its descriptor"])
            except ValueError as error:
                errors[number] = str(error)
        return descriptors, errors

    def match(
        self, row: int, distance: float, same_place: bool, **details: Any
    ) -> Match:
        """Describes a database image that was retrieved.

        Args:
            row: of the index.
            distance: squared distance of the descriptors.
            same_place: whether it shows the place of the first match.
            **details: other fields of the match.
        """
        east, north = self.places.positions[row].tolist()
        known = bool(np.isfinite([east, north]).all())
        image_id, place_id, zone = self._rows.iloc[row]
        latitude, longitude = None, None
        if known:
            latitude, longitude = geography.degrees_at(east, north, zone)
        return Match(
            image_id=image_id,
            place_id=place_id,
            squared_distance=float(distance),
            same_place=bool(same_place),
            utm_east_m=east if known else None,
            utm_north_m=north if known else None,
            utm_zone=zone,
            latitude=latitude,
            longitude=longitude,
            **details,
        )


def searched_in(
    index: Index,
    k: int,
    *,
    prior: Prior | None = None,
    where: np.ndarray | None = None,
) -> Searched:
    """Describes a search of an index for k images.

    Args:
        index: the index.
        k: neighbours per query.
        prior: what is known of the photographs.
        where: bool [N], the images that agree with it; None: all.
    """
    images = index.manifest if where is None else index.manifest[where]
    places = None
    if manifest.has_places(images):
        places = images["place_id"].nunique()
    return Searched(
        images=len(images),
        indexed=len(index.manifest),
        places=places,
        split=index.metadata["split"],
        search=index.searches_with,
        recall=index.recall_at(k, where=where),
        prior="" if prior is None else prior.as_text(),
    )
