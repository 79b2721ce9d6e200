"""Re-ranking: the images that were found for a photograph, in a new order."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from absl import logging

from sare_tf.local_features import combination, extractors, verification
from sare_tf.local_features.combination import Combination
from sare_tf.local_features.feature_source import FeatureSource
from sare_tf.local_features.features import Extractor, LocalFeatures
from sare_tf.local_features.verification import Verified
from sare_tf.records.records import Records
from sare_tf.search import bound_file, local_index, rerank_file
from sare_tf.search.answer_scores import Found
from sare_tf.search.opened_index import Index
from sare_tf.search.options import RerankOptions

# Lines of a match. Ours.
_MOST_LINES = 40


@dataclasses.dataclass
class Seconds:
    """What verifying took, added up over photographs.

    Args:
        features: finding their local features.
        database: reading, or finding, those of the images.
        verification: matching and verifying.
    """

    features: float = 0.0
    database: float = 0.0
    verification: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """What verification says of the images that were found for a photograph.

    Args:
        query: the local features of the photograph.
        candidates: those of the images.
        verified: their matches with the photograph.
    """

    query: LocalFeatures
    candidates: Sequence[LocalFeatures]
    verified: Sequence[Verified]

    @property
    def inliers(self) -> np.ndarray:
        """The inliers of each image, int64 [T]."""
        return np.array([one.inliers for one in self.verified], np.int64)


class Verifier:
    """Verifies the images that were found for photographs.

    Args:
        extractor: finds local features of photographs.
        source: gives those of the images.
        geometry: one of `registry.GEOMETRIES`.

    Attributes:
        seconds: what it took so far.
    """

    def __init__(
        self, extractor: Extractor, source: FeatureSource, *, geometry: str
    ):
        self._extractor = extractor
        self._source = source
        self._geometry = extractors.geometry_of(extractor, geometry)
        self.seconds = Seconds()

    def __call__(
        self, encoded: Sequence[bytes], rows: np.ndarray
    ) -> list[Evidence]:
        """Verifies images of the database.

        Args:
            encoded: B photographs, JPEG or PNG.
            rows: int [B, T], rows of the database; -1 for none, which has no
                inliers.
        """
        began = time.perf_counter()
        queries = self._extractor(encoded)
        self.seconds.features += time.perf_counter() - began
        return [
            self._verify(query, of_query)
            for query, of_query in zip(queries, rows, strict=True)
        ]

    def _verify(self, query: LocalFeatures, rows: np.ndarray) -> Evidence:
        began = time.perf_counter()
        is_there = rows >= 0
        given = iter(self._source(rows[is_there].tolist()))
        nothing = LocalFeatures.of_no_image(
            count=self._extractor.count, dimension=self._extractor.dimension
        )
        candidates = [next(given) if one else nothing for one in is_there]
        middle = time.perf_counter()
        verified = verification.verify(query, candidates, self._geometry)
        self.seconds.database += middle - began
        self.seconds.verification += time.perf_counter() - middle
        return Evidence(query=query, candidates=candidates, verified=verified)


def load_extractor(options: RerankOptions) -> Extractor:
    """Loads the extractor that `--rerank` names.

    Raises:
        FileNotFoundError, ImportError, ValueError: as `extractors.load`.
    """
    return extractors.load(
        options.rerank,
        count=options.local_count,
        longest_side=options.local_side,
    )


def bound_to(
    options: RerankOptions, index: Index, extractor: Extractor
) -> dict[str, Any]:
    """Returns what the calibration of a new order depends on."""
    return {
        "export_fingerprint": index.metadata["export_fingerprint"],
        "index_digest": index.digest,
        "extractor_fingerprint": extractor.fingerprint,
        "geometry": options.rerank_geometry,
        "top": options.rerank_top,
    }


def ranking_of(bound: dict[str, Any], chosen: Combination) -> str:
    """Returns what the calibration of re-ranked answers is bound to.

    Args:
        bound: of `bound_to`.
        chosen: makes the order.
    """
    return (
        f"{bound['extractor_fingerprint']} {bound['geometry']} {bound['top']} "
        f"{chosen.threshold!r} {chosen.weight!r}"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewOrder:
    """What re-ranking says of the images of a photograph, in its order.

    Args:
        inliers: of the first images; the others were not verified.
        lines: some inliers of each of these, see `inlier_lines`.
        text: what was done, in words; empty if nothing was.
    """

    inliers: Sequence[int]
    lines: Sequence[Sequence[tuple[float, ...]]]
    text: str

    @classmethod
    def unchanged(cls) -> Self:
        """Returns that of a photograph that is not re-ranked."""
        return cls(inliers=(), lines=(), text="")

    def details(self, rank: int) -> dict[str, Any]:
        """Returns inliers and lines of an image, from 0, if it has any."""
        if rank >= len(self.inliers):
            return {}
        return {"inliers": self.inliers[rank], "lines": self.lines[rank]}


class Reranker:
    """Orders the images that an index found for photographs anew.

    Args:
        options: local features, geometry and number of images, and the records
            that hold images whose features are not stored.
        index: the opened index.

    Raises:
        FileNotFoundError, ImportError, ValueError: there are no such local
            features, they do not fit those that are stored, or there are
            neither these nor records.

    Attributes:
        top: images of each photograph that it orders anew.
        ranking: what a calibration of its answers is bound to; empty if how
            it orders was not measured.
    """

    def __init__(self, options: RerankOptions, index: Index):
        extractor = load_extractor(options)
        records = Records(options.records) if options.records else None
        self._source = local_index.source_of(index, extractor, records)
        self._verifier = Verifier(
            extractor, self._source, geometry=options.rerank_geometry
        )
        self._name = extractor.name
        self.top = options.rerank_top
        self._calibrated, why_not = rerank_file.read(
            index.folders, bound_to=bound_to(options, index, extractor)
        )
        self.ranking = ""
        if self._calibrated is not None:
            self.ranking = ranking_of(
                bound_to(options, index, extractor),
                self._calibrated.combination,
            )
        else:
            if why_not == bound_file.ABSENT:
                why_not = f"{why_not}: {rerank_file.COMMAND} makes it"
            logging.warning(
                "The new order is made with the default threshold and weight, "
                "not with measured ones, because %s.",
                why_not,
            )

    def __call__(
        self, encoded: Sequence[bytes], found: Found
    ) -> tuple[Found, list[NewOrder]]:
        """Orders the first images of each photograph anew.

        Args:
            encoded: B photographs, JPEG or PNG.
            found: what retrieval found for them.

        Returns:
            The images in their new order, and what is said of each photograph.
        """
        count = min(self.top, found.rows.shape[1])
        evidence = self._verifier(encoded, found.rows[:, :count])
        inliers = np.zeros((len(evidence), count), np.int64)
        for number, one in enumerate(evidence):
            inliers[number] = one.inliers
        ordered = [
            self._ordered(one, found.take([number]), inliers[[number]])
            for number, one in enumerate(evidence)
        ]
        if not ordered:
            return found, []
        return Found.joined([new for new, _ in ordered]), [
            said for _, said in ordered
        ]

    def _ordered(
        self, evidence: Evidence, found: Found, inliers: np.ndarray
    ) -> tuple[Found, NewOrder]:
        """Orders the images of one photograph, [1, k]."""
        count = inliers.shape[1]
        first = found.squared_distances[:, :count]
        if self._calibrated is not None:
            chosen = self._calibrated.combination
        else:
            chosen = combination.default(first)
        (order,) = chosen.order(first, inliers)
        lines = [
            verification.inlier_lines(
                evidence.query,
                evidence.candidates[place],
                evidence.verified[place],
                most=_MOST_LINES,
            ).tolist()
            for place in order
        ]
        return found.reranked(chosen, inliers), NewOrder(
            inliers=inliers[0, order].tolist(),
            lines=lines,
            text=self._text(
                evidence, found.rows[0, :count], order, chosen.threshold
            ),
        )

    def _text(
        self,
        evidence: Evidence,
        rows: np.ndarray,
        order: np.ndarray,
        threshold: float,
    ) -> str:
        if not evidence.query.num_valid:
            return "not re-ranked, the photograph has no local features"
        if not self._source.absent.isdisjoint(rows.tolist()):
            words = "re-ranked without images that the records lack"
        elif evidence.inliers.max(initial=0) < threshold:
            return "re-ranking found no evidence and kept the order"
        elif order[0] == 0:
            words = "re-ranking kept the first match"
        else:
            words = "re-ranking chose the first match"
        return f"{words} ({self._name}, {evidence.inliers[order[0]]} inliers)"
