"""How sure an answer is, whether it is rejected, and where its place is."""

import dataclasses

import numpy as np
from absl import logging

from sare_tf.search import bound_file, calibration, geography
from sare_tf.search import placing as placing_of
from sare_tf.search.answer_scores import Found, Scorer
from sare_tf.search.calibration import Calibration
from sare_tf.search.confidence import Places
from sare_tf.search.estimate import Estimate, Placing
from sare_tf.search.opened_index import Index
from sare_tf.search.placing import Placed, PositionMap
from sare_tf.search.reliability import RejectionRates, Reliability


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """What is said of an answer.

    Args:
        confidence: from 0 to 1, see `confidence`; None if the database holds
            no other place, or if re-ranking put another place first.
        reliability: how often such answers were right; None if that was not
            measured.
        rejected: whether the photograph is declared not to be in the database.
        position: where it was taken; None if the matches have no position, or
            if it is rejected.
    """

    confidence: float | None
    reliability: Reliability | None
    rejected: bool
    position: Estimate | None


class Judge:
    """Judges answers from an index by its calibration.

    Args:
        index: the opened index.
        places: its places.
        radius_m: images at most this far apart show the same place.
        reject_below: answers that are right less often are rejected; 0: none.
        ranking: what a calibration of re-ranked answers is bound to, empty if
            none can fit; None: answers are not re-ranked.

    Raises:
        ValueError: answers shall be rejected, and the index has no calibration
            that fits.

    Attributes:
        rejection: how often answers are rejected wrongly; None without a
            limit.
    """

    def __init__(
        self,
        index: Index,
        *,
        places: Places,
        radius_m: float,
        reject_below: float,
        ranking: str | None,
    ):
        self._places = places
        self._positions = PositionMap(index.manifest, radius_m=radius_m)
        self._radius_m = radius_m
        # Of answers in their order, and of retrieval.
        self._plain, why_not = _read(index, radius_m, "")
        self._calibration = self._plain
        if ranking is not None:
            self._calibration, why_not = None, bound_file.ABSENT
            if ranking:
                self._calibration, why_not = _read(index, radius_m, ranking)
        used = self._calibration or self._plain
        if used is not None:
            logging.info("%s", used.describe())
        elif why_not != bound_file.ABSENT:
            logging.warning(
                "The calibration is not used, because %s. %s makes another.",
                why_not,
                calibration.COMMAND,
            )
        self.rejection: RejectionRates | None = None
        if reject_below:
            self.rejection = _rates_of(
                self._calibration,
                reject_below,
                index=index,
                why_not=why_not,
                is_reranked=ranking is not None,
            )
            logging.info("%s", self.rejection.as_text())

    def __call__(
        self,
        retrieved: Found,
        answered: Found,
        *,
        count: int | np.ndarray,
        of_part: bool,
    ) -> list[Judgement]:
        """Judges the answers to photographs.

        Args:
            retrieved: the images that retrieval found for B photographs.
            answered: the same in the order of the answers.
            count: images that were searched, or int [B].
            of_part: whether they are a part of the database, of which nothing
                was measured.
        """
        if not len(retrieved.rows):
            return []
        scores = self._scores(self._plain, retrieved, count)
        confidences = scores["margin"].copy()
        measured = self._calibration
        if answered is not retrieved:
            first = np.stack([retrieved.rows[:, 0], answered.rows[:, 0]], 1)
            is_other = ~self._places.same_as_first(first).all(axis=1)
            confidences[is_other] = np.nan
            if measured is not None:
                scores = self._scores(measured, answered, count)
            else:
                measured = self._plain
                scores["margin"] = confidences
        placing = self._placing(of_part)
        placed = self._positions.place(
            answered.rows, answered.values, placing.temperature
        )
        return [
            self._judgement(
                float(confidences[number]),
                {name: float(one[number]) for name, one in scores.items()},
                None if of_part else measured,
                self._estimate(placed, number, placing),
            )
            for number in range(len(confidences))
        ]

    def _scores(
        self,
        measured: Calibration | None,
        found: Found,
        count: int | np.ndarray,
    ) -> dict[str, np.ndarray]:
        temperature = None
        if measured is not None and measured.placing is not None:
            temperature = measured.placing.temperature
        scorer = Scorer(self._places, self._positions, temperature)
        return scorer(found, count=count)

    def _placing(self, of_part: bool) -> Placing:
        """How positions are estimated, and how large their ellipses are."""
        placing = self._calibration and self._calibration.placing
        if placing is None:
            return Placing()
        if of_part:
            return Placing(
                method=placing.method, temperature=placing.temperature
            )
        return placing

    def _judgement(
        self,
        confidence: float,
        scores: dict[str, float],
        measured: Calibration | None,
        position: Estimate | None,
    ) -> Judgement:
        reliability = None
        if measured is not None:
            score = measured.score(scores)
            if not np.isnan(score):
                reliability = measured.reliability_at(score)
        rejected = (
            self.rejection is not None
            and reliability is not None
            and reliability.right < self.rejection.reject_below
        )
        return Judgement(
            confidence=None if np.isnan(confidence) else confidence,
            reliability=reliability,
            rejected=rejected,
            position=None if rejected else position,
        )

    def _estimate(
        self, placed: Placed, number: int, placing: Placing
    ) -> Estimate | None:
        if placed.anchors[number] < 0:
            return None
        position = placed.positions[placing.method][number]
        zone = self._positions.zone(placed.anchors[number])
        weights, points = placed.weights[number], placed.points[number]
        images = int(np.isfinite(points).all(axis=1).sum())
        near = np.linalg.norm(points - position, axis=1) <= self._radius_m
        heading = placed.headings[placing.method][number]
        covariance = placed.take([number]).covariance(placing.method)[0]
        latitude, longitude = geography.degrees_at(*position.tolist(), zone)
        return Estimate(
            method=placing.method,
            images=images,
            agreement=float(weights[near].sum()),
            utm_east_m=float(position[0]),
            utm_north_m=float(position[1]),
            utm_zone=zone,
            latitude=latitude,
            longitude=longitude,
            heading_deg=None if np.isnan(heading) else float(heading),
            # One image has no spread.
            ellipses=placing_of.ellipses(covariance, placing)
            if images > 1
            else [],
            queries=placing.queries,
            split=calibration.SPLIT,
        )


def _read(
    index: Index, radius_m: float, ranking: str
) -> tuple[Calibration | None, str]:
    return calibration.read(
        index.folders,
        export_fingerprint=index.metadata["export_fingerprint"],
        index_digest=index.digest,
        positive_radius_m=radius_m,
        ranking=ranking,
    )


def _rates_of(
    measured: Calibration | None,
    reject_below: float,
    *,
    index: Index,
    why_not: str,
    is_reranked: bool,
) -> RejectionRates:
    if measured is None:
        re_ranked = " and --rerank" * is_reranked
        raise ValueError(
            f"Expected an index with a calibration for --reject_below"
            f"{re_ranked}. Received: index={index.path!r}, of which no "
            f"calibration is used, because {why_not}. Run "
            f"{calibration.COMMAND}{' --rerank=...' * is_reranked}, or leave "
            "out --reject_below."
        )
    return measured.rejection(reject_below)
