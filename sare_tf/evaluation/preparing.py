"""What an evaluation measures: its protocol, ground truth, and recall@N."""

from collections.abc import Sequence

from absl import logging

from sare_tf.dataset.positives import choose_rule
from sare_tf.evaluation import evaluate_descriptors, protocol_choice, protocols
from sare_tf.evaluation.evaluate_descriptors import Task
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.records.records import Records
from sare_tf.search.opened_index import Index


def prepare(options: EvaluationOptions, records: Records, index: Index) -> Task:
    """Chooses the protocol, and makes its ground truth.

    Args:
        options: the protocol and its numbers.
        records: the opened records of the queries.
        index: the opened index.

    Raises:
        ValueError: they lack what the protocol needs.
    """
    queries = records.rows(options.split, "query")
    rule = choose_rule(
        queries,
        index.manifest,
        rule=options.positives,
        relations=records.relations,
    )
    protocol = protocol_choice.choose(options, rule)
    logging.info("Protocol %s. %s", protocol.name, protocols.describe(protocol))
    task = evaluate_descriptors.prepare(
        protocol, queries, index.manifest, relations=records.relations
    )
    is_missing = [not len(rows) for rows in task.truth.positives]
    if any(is_missing):
        missing = task.queries["image_id"][is_missing]
        logging.warning(
            "%d of %d queries have no positive in the database and %s "
            "(positives is 0 in queries.csv): %s%s",
            len(missing),
            len(task.queries),
            "are left out" if protocol.leaves_out else "count as misses",
            ", ".join(missing[:3]),
            " ..." if len(missing) > 3 else "",
        )
    return task


def choose_ks(
    recall_at: Sequence[int], num_searched: int
) -> tuple[list[int], list[int]]:
    """Returns N of recall@N that the database is large enough for, and others.

    Args:
        recall_at: values of N.
        num_searched: images that are searched.

    Raises:
        ValueError: the database is too small for all of them.
    """
    ks = sorted(set(recall_at))
    left_out = [k for k in ks if k > num_searched]
    ks = [k for k in ks if k <= num_searched]
    if not ks:
        raise ValueError(
            f"Expected an N of recall@N of at most {num_searched}, the "
            f"images of the database. Received: recall_at={left_out}."
        )
    if left_out:
        logging.warning(
            "Left out recall@N for N=%s: the database has %d images.",
            left_out,
            num_searched,
        )
    return ks, left_out
