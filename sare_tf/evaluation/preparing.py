"""What an evaluation measures: its protocol and ground truth."""

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
