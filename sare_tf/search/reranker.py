"""Re-ranking: the images that were found for a photograph, in a new order."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from sare_tf.local_features import combination, extractors, verification
from sare_tf.local_features.feature_source import FeatureSource
from sare_tf.local_features.features import Extractor, LocalFeatures
from sare_tf.local_features.verification import Verified
from sare_tf.records.records import Records
from sare_tf.search import bound_file, local_index, rerank_file
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewOrder:
    """The images that were found for a photograph, in a new order.

    Args:
        order: int64 [k], positions in the old order.
        inliers: of each image in the new order; None where not verified.
        lines: some inliers of each image, see `inlier_lines`.
        text: what was done, in words.
    """

    order: np.ndarray
    inliers: Sequence[int | None]
    lines: Sequence[Sequence[tuple[float, ...]]]
    text: str


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
        if self._calibrated is None:
            if why_not == bound_file.ABSENT:
                why_not = f"{why_not}: {rerank_file.COMMAND} makes it"
            logging.warning(
                "The new order is made with the default threshold and weight, "
                "not with measured ones, because %s.",
                why_not,
            )

    def __call__(
        self,
        encoded: Sequence[bytes],
        rows: np.ndarray,
        squared_distances: np.ndarray,
    ) -> list[NewOrder]:
        """Orders the first images of each photograph anew.

        Args:
            encoded: B photographs, JPEG or PNG.
            rows: int [B, k], rows of the index, nearest first; -1 for none.
            squared_distances: [B, k].
        """
        evidence = self._verifier(encoded, rows[:, : self.top])
        return [
            self._ordered(*one)
            for one in zip(evidence, rows, squared_distances, strict=True)
        ]

    def _ordered(
        self, evidence: Evidence, rows: np.ndarray, distances: np.ndarray
    ) -> NewOrder:
        inliers = evidence.inliers
        count = len(inliers)
        first = distances[None, :count]
        if self._calibrated is not None:
            chosen = self._calibrated.combination
        else:
            chosen = combination.default(first)
        order = chosen.order(first, inliers[None])[0]
        lines = [
            verification.inlier_lines(
                evidence.query,
                evidence.candidates[place],
                evidence.verified[place],
                most=_MOST_LINES,
            ).tolist()
            for place in order
        ]
        rest = len(rows) - count
        return NewOrder(
            order=np.append(order, np.arange(count, len(rows))),
            inliers=[*inliers[order].tolist(), *[None] * rest],
            lines=[*lines, *[()] * rest],
            text=self._text(evidence, rows[:count], order, chosen.threshold),
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
