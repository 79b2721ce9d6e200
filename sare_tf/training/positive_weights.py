"""Weights of the positives of a place batch, by how much they see of the same.

Axis letters: M batches; P places of a batch with K images each.
"""

import numpy as np
import pandas as pd

from sare_tf.dataset import manifest
from sare_tf.training.place_batches import PlaceBatches

# Angle of the view of a camera. Leyva-Vallina et al. 2023, section 3.1.
_VIEW_DEG = 90.0


def of_batches(
    plan: PlaceBatches, *, rule: str, radius_m: float
) -> np.ndarray | None:
    """Computes the weights of an image's positives, from 0 to 1.

    "distance" is exp(-(d / radius_m)^2) of two images d apart. "overlap"
    multiplies it by the share of the viewing angle, of 90 degrees, that two
    images have in common: 1 - turn / 90, or 0 if they are turned by more.

    Source: graded positives as in Leyva-Vallina et al., "Data-efficient Large
    Scale Place Recognition with Graded Similarity Supervision", CVPR 2023,
    section 3.1, who compute the common area of two sectors; the weights here
    are ours.

    Args:
        plan: batches of images with positions.
        rule: "equal", "distance" or "overlap".
        radius_m: distance at which a weight has fallen to 1 / e.

    Returns:
        float32 [M, P * K, K]: the weights of an image and the K images of its
        place, in their order; None for "equal".

    Raises:
        ValueError: an unknown rule, or images without what the rule needs.
    """
    if rule == "equal":
        return None
    check(plan.rows, rule=rule)
    images = plan.images.reshape(-1, plan.images_per_place)  # [M * P, K]
    east, north = (
        plan.rows[name].to_numpy(np.float64)[images]
        for name in ("utm_east_m", "utm_north_m")
    )
    apart = np.hypot(_differences(east), _differences(north))
    weights = np.exp(-((apart / radius_m) ** 2))  # [M * P, K, K]
    if rule == "overlap":
        heading = plan.rows["heading_deg"].to_numpy(np.float64)[images]
        turn = np.abs((_differences(heading) + 180.0) % 360.0 - 180.0)
        weights *= np.maximum(1.0 - turn / _VIEW_DEG, 0.0)
    return weights.astype(np.float32).reshape(
        *plan.images.shape, plan.images_per_place
    )


def check(rows: pd.DataFrame, *, rule: str) -> None:
    """Refuses images without what a rule needs.

    Args:
        rows: rows of a manifest.
        rule: "equal", "distance" or "overlap".

    Raises:
        ValueError: an unknown rule, images without positions, or without
            headings for "overlap".
    """
    if rule not in ("equal", "distance", "overlap"):
        raise ValueError(
            "Expected weights of positives: equal, distance or overlap. "
            f"Received: positive_weights={rule!r}."
        )
    if rule != "equal" and not manifest.has_coordinates(rows):
        unknown = int(rows["utm_east_m"].isna().sum())
        raise ValueError(
            "Expected a position of every image, to weight positives. "
            f"Received: positive_weights={rule!r}, {unknown} of {len(rows)} "
            "images without a position. Leave --positive_weights out."
        )
    unknown = int(rows["heading_deg"].isna().sum())
    if rule == "overlap" and unknown:
        raise ValueError(
            "Expected a heading of every image, to weight positives by what "
            f"they see in common. Received: positive_weights={rule!r}, "
            f"{unknown} of {len(rows)} images without a heading. Choose "
            "--positive_weights=distance."
        )


def _differences(values: np.ndarray) -> np.ndarray:
    """[N, K] -> [N, K, K]."""
    return values[:, :, None] - values[:, None, :]
