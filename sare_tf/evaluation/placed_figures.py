"""How far estimated positions are from the truth."""

from typing import Any

import numpy as np
import pandas as pd

from sare_tf.evaluation import summaries
from sare_tf.search.estimate import METHODS, SHARES, Placing
from sare_tf.search.placing import Placed

# Ours: distances for shares of queries.
WITHIN_M = (5, 25, 50, 100)
# Resampled queries at a time, so that memory is bounded.
_DRAWN = 1 << 22


def figures(
    placed: Placed,
    truth: np.ndarray,
    taken: pd.DataFrame,
    placing: Placing,
) -> dict[str, Any] | None:
    """Returns what metrics.json says of positions.

    Args:
        placed: of Q queries.
        truth: float64 [Q, 2], where they were taken, in the zones of their
            anchors; NaN where unknown, or in no common grid.
        taken: Q rows of a manifest, for headings.
        placing: which method `locate` uses, and the size of ellipses.

    Returns:
        JSON; None if no position is known.
    """
    known = np.isfinite(truth).all(axis=1) & (placed.anchors >= 0)
    if not known.any():
        return None
    inside = placed.squared_radius(placing.method, truth)[known]
    areas = np.sqrt(np.linalg.det(placed.covariance(placing.method)))[known]
    return {
        "queries": int(known.sum()),
        "chosen": placing.method,
        "temperature": placing.temperature,
        "measured_on": placing.queries,
        "methods": {
            method: {
                **_errors(errors_m(placed, truth, method)[known]),
                "heading": _headings(placed.headings[method], taken),
            }
            for method in METHODS
        },
        "ellipse": {
            name: {
                "inside": float((inside <= placing.scales[name]).mean()),
                # The radius of a circle of the same area.
                "median_radius_m": float(
                    np.median(np.sqrt(placing.scales[name] * areas))
                ),
            }
            for name in SHARES
        },
    }


def errors_m(placed: Placed, truth: np.ndarray, method: str) -> np.ndarray:
    """Returns how far estimates are from the truth, float64 [Q] metres."""
    return np.linalg.norm(placed.positions[method] - truth, axis=1)


def _errors(errors: np.ndarray) -> dict[str, Any]:
    within = np.stack([errors <= limit for limit in WITHIN_M], axis=1)
    shares = summaries.summary(within, WITHIN_M, name="within_m")
    return {
        "median_m": float(np.median(errors)),
        "median_interval_m": median_interval(errors).tolist(),
        **shares,
    }


def _headings(estimated: np.ndarray, taken: pd.DataFrame) -> dict | None:
    truth = taken["heading_deg"].to_numpy(np.float64)
    off = np.abs((estimated - truth + 180) % 360 - 180)
    known = np.isfinite(off)
    if not known.any():
        return None
    return {
        "queries": int(known.sum()),
        "median_deg": float(np.median(off[known])),
    }


def median_interval(values: np.ndarray) -> np.ndarray:
    """Bootstrap interval of a median, by percentiles, as `summaries.interval`.

    Args:
        values: float [Q].

    Returns:
        float64 [2], lower and upper end.
    """
    rng = np.random.default_rng(summaries.SEED)
    medians = []
    step = max(1, _DRAWN // len(values))
    for start in range(0, summaries.RESAMPLES, step):
        draws = min(step, summaries.RESAMPLES - start)
        drawn = rng.integers(len(values), size=(draws, len(values)))
        medians.append(np.median(values[drawn], axis=1))
    outside = (1 - summaries.CONFIDENCE) / 2
    return np.quantile(np.concatenate(medians), [outside, 1 - outside])
