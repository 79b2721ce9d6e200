"""Miners: which pairs of a batch a loss counts.

A miner looks at the whole batch and has no gradient. Axis letters: B images of
a batch, also the anchors; C images that may attract or repel them.
"""

from keras import ops

from sare_tf.losses import settings

# Of cosines. Wang et al. 2019, section 4.4: "epsilon is set to 0.1".
_EPSILON = 0.1
_NEVER = 1e30


def mined(similarities, positives, negatives, *, miner):
    """Selects pairs of images by their cosines.

    "multi_similarity" keeps a negative of an anchor if it is more similar than
    the least similar positive, less 0.1; and a positive if it is less similar
    than the most similar negative, plus 0.1. An anchor without a positive
    keeps no negative, and the other way round. "none" keeps all pairs.

    Source: Wang et al., "Multi-Similarity Loss with General Pair Weighting for
    Deep Metric Learning", CVPR 2019, equations 11 and 12.

    Args:
        similarities: cosines of anchors and other images, [B, C].
        positives: which pairs show one place, bool [B, C].
        negatives: which pairs show two places, bool [B, C].
        miner: "none" or "multi_similarity".

    Returns:
        The positives and the negatives that are kept, bool [B, C] each.

    Raises:
        ValueError: an unknown miner.
    """
    settings.check(miner=miner)
    if miner == "none":
        return positives, negatives
    hardest_positive = ops.min(
        ops.where(positives, similarities, _NEVER), axis=1, keepdims=True
    )
    hardest_negative = ops.max(
        ops.where(negatives, similarities, -_NEVER), axis=1, keepdims=True
    )
    return (
        ops.logical_and(positives, similarities - _EPSILON < hardest_negative),
        ops.logical_and(negatives, similarities + _EPSILON > hardest_positive),
    )
