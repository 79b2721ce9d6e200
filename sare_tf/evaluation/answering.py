"""From what retrieval found to answers: re-ranked, and with a calibration."""

import dataclasses
from pathlib import Path

from absl import logging

from sare_tf import serving
from sare_tf.evaluation import calibrating, distractors, reranking
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.evaluation.query_results import QueryResults
from sare_tf.evaluation.reranking import Reranked
from sare_tf.records.records import Records
from sare_tf.runtime import run_lock
from sare_tf.search import bound_file, calibration
from sare_tf.search.answer_scores import Found
from sare_tf.search.calibration import Calibration
from sare_tf.search.opened_index import Index


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers to the queries of an evaluation.

    Args:
        results: of the queries, in the order of the answers.
        found: their images, likewise.
        elsewhere: those of photographs from elsewhere; None without any.
        reranked: how they were re-ranked; None if they were not.
        calibration: of such answers; None if the index has none that fits.
        is_measured: whether it was measured just now.
    """

    results: QueryResults
    found: Found
    elsewhere: Found | None
    reranked: Reranked | None
    calibration: Calibration | None
    is_measured: bool


def answer(
    results: QueryResults,
    options: EvaluationOptions,
    *,
    records: Records,
    index: Index,
    servable: serving.Servable | serving.RemoteServable,
) -> Answers:
    """Makes answers of what retrieval found.

    Args:
        results: of retrieval.
        options: re-ranking, calibration and photographs from elsewhere.
        records: the opened records of the queries.
        index: the opened index.
        servable: the model of both.

    Raises:
        FileNotFoundError, ImportError, ValueError: there are no such local
            features, or no photographs in the folder of distractors.
    """
    loaded = distractors.load(
        options.distractors, servable, batch_size=options.batch_size
    )
    found = Found.retrieved(results.rows, results.squared_distances)
    elsewhere, asked, reranked, ranking = None, None, None, ""
    if loaded is not None:
        elsewhere = loaded.search(
            index.descriptors,
            results.rows.shape[1],
            allowed=results.truth.allowed,
        )
    if options.calibrate or options.reranks_features:
        asked = calibrating.ask(
            options,
            records=records,
            index=index,
            servable=servable,
            elsewhere=loaded if options.calibrate else None,
        )
    if options.reranks_features:
        reranked = reranking.rerank(
            results,
            options,
            records=records,
            index=index,
            asked=asked,
            elsewhere=loaded and (loaded, elsewhere),
        )
        results, found = reranked.after, reranked.found
        elsewhere, asked = reranked.elsewhere, reranked.asked
        ranking = reranked.ranking
    calibrated = None
    if options.calibrate and asked is not None:
        calibrated = calibrating.measure(
            asked,
            radius_m=options.positive_radius_m,
            index=index,
            fingerprint=servable.fingerprint,
        )
    is_measured = calibrated is not None
    if not is_measured:
        calibrated = _read(options, index, servable, ranking)
    return Answers(
        results=results,
        found=found,
        elsewhere=elsewhere,
        reranked=reranked,
        calibration=calibrated,
        is_measured=is_measured,
    )


def keep(answers: Answers, index: Index) -> Path | None:
    """Keeps in the index what was measured on val, for `locate`.

    Args:
        answers: of an evaluation.
        index: the opened index.

    Returns:
        The file of the calibration; None if none was measured.
    """
    if answers.reranked is not None:
        reranking.keep(answers.reranked, index)
    if not answers.is_measured:
        return None
    folder = index.folders[0]
    with run_lock.only_run(folder):
        answers.calibration.write(folder)
    return folder / answers.calibration.name


def _read(
    options: EvaluationOptions,
    index: Index,
    servable: serving.Servable | serving.RemoteServable,
    ranking: str,
) -> Calibration | None:
    """The calibration that the index holds, if it fits."""
    found, why_not = calibration.read(
        index.folders,
        export_fingerprint=servable.fingerprint,
        index_digest=index.digest,
        positive_radius_m=options.positive_radius_m,
        ranking=ranking,
    )
    if found is None and why_not != bound_file.ABSENT:
        logging.warning(
            "The calibration is not used, because %s. --calibrate makes "
            "another.",
            why_not,
        )
    return found
