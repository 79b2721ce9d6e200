"""Re-ranking: the images that were found for a photograph, in a new order."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from sare_tf.local_features import extractors, verification
from sare_tf.local_features.feature_source import FeatureSource
from sare_tf.local_features.features import Extractor, LocalFeatures
from sare_tf.local_features.verification import Verified
from sare_tf.search.opened_index import Index
from sare_tf.search.options import RerankOptions


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
