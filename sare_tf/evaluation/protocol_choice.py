"""The protocol that options choose."""

from sare_tf.evaluation import protocols
from sare_tf.evaluation.options import ProtocolOptions
from sare_tf.evaluation.protocols import Protocol


def choose(options: ProtocolOptions, rule: str) -> Protocol:
    """Returns the protocol; for --protocol=auto, the one that a rule names.

    Args:
        options: the protocol and its numbers.
        rule: the rule of positives of the dataset: radius, place or list.

    Raises:
        ValueError: a number that the protocol fixes.
    """
    return protocols.choose(
        rule if options.protocol == "auto" else options.protocol,
        radius_m=options.positive_radius_m,
        frames=options.positive_frames,
        heading_deg=options.positive_heading_deg,
        subtask=options.msls_subtask,
        sequence_length=options.sequence_length,
        other_sequence=options.other_sequence,
    )
