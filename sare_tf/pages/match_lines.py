"""Two images side by side, with lines between the points that agree."""

import dataclasses

import numpy as np
from markupsafe import Markup

from sare_tf.evaluation.reranking import Reranked
from sare_tf.local_features.features import LocalFeatures
from sare_tf.local_features.verification import Verified, inlier_lines
from sare_tf.pages import html
from sare_tf.pages.html import Picture
from sare_tf.records.records import Records

# Ours: units of a drawing's height and of the gap; lines of a drawing; and
# pairs of each kind on the page.
_HEIGHT, _GAP = 180, 6
_MOST_LINES = 40
_PAIRS = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """A query and an image whose place in the answer geometry changed.

    Args:
        kind: "right" or "wrong", whether the image is.
        title: what became of it.
        drawing: SVG of both.
    """

    kind: str
    title: str
    drawing: Markup


def make(reranked: Reranked, records: Records) -> list[Pair]:
    """Draws queries whose first image became right, and some that became wrong.

    Of each kind, evenly over their inliers; of one that became wrong also the
    image that was first before.

    Args:
        reranked: the results.
        records: has the images.
    """
    before, after = reranked.before, reranked.after
    counted = before.truth.counted
    pairs = []
    for is_good in (True, False):
        changed = (before.ranks == 1, after.ranks == 1)
        from_wrong, to_right = changed if is_good else changed[::-1]
        queries = _evenly(np.flatnonzero(counted & ~from_wrong & to_right))
        if not len(queries):
            continue
        for query, evidence in zip(
            queries, reranked.verify(queries), strict=True
        ):
            places = [0]
            if not is_good:
                rows = after.rows[query, : len(evidence.verified)]
                places += np.flatnonzero(rows == before.rows[query, 0]).tolist()
            for place in places:
                picture = _picture(reranked, query, place, records)
                pairs.append(
                    Pair(
                        kind="right" if picture.correct else "wrong",
                        title=_title(evidence.verified[place], place, is_good),
                        drawing=draw(
                            _query(reranked, query, records),
                            picture,
                            evidence.query,
                            evidence.candidates[place],
                            evidence.verified[place],
                        ),
                    )
                )
    return pairs


def _evenly(queries: np.ndarray) -> np.ndarray:
    count = min(_PAIRS, len(queries))
    return queries[np.linspace(0, len(queries) - 1, count).round().astype(int)]


def _title(verified: Verified, place: int, is_good: bool) -> str:
    inliers = f"{verified.inliers} inliers"
    if place:
        return f"was first and right: {inliers}"
    return f"became first, {'right' if is_good else 'wrong'}: {inliers}"


def _query(reranked: Reranked, query: int, records: Records) -> Picture:
    row = reranked.before.queries.iloc[[query]]
    (encoded,) = records.read_images(row)
    return Picture(encoded=encoded, name=row["image_id"].iloc[0])


def _picture(
    reranked: Reranked, query: int, place: int, records: Records
) -> Picture:
    results = reranked.after
    name = results.database["image_id"].iloc[results.rows[query, place]]
    return Picture(
        encoded=records.read_named([name])[0],
        name=name,
        correct=bool(results.hits[query, place]),
    )


def draw(
    left: Picture,
    right: Picture,
    left_features: LocalFeatures,
    right_features: LocalFeatures,
    verified: Verified,
) -> Markup:
    """Draws two images and lines between their inliers, as SVG.

    Args:
        left: the query.
        right: the other image.
        left_features: of the query.
        right_features: of the other image.
        verified: their matches.
    """
    parts, places, start = [], [], 0.0
    for picture, features in ((left, left_features), (right, right_features)):
        scale = _HEIGHT / max(features.height, 1)
        width = max(features.width * scale, 1)
        if picture.encoded is not None:
            parts.append(
                Markup(
                    '<image href="{}" x="{:.1f}" width="{:.1f}" height="{}"/>'
                ).format(html.thumbnail(picture), start, width, _HEIGHT)
            )
        places.append((start, width))
        start += width + _GAP
    lines = inlier_lines(
        left_features, right_features, verified, most=_MOST_LINES
    )
    (left_start, left_width), (right_start, right_width) = places
    for x, y, other_x, other_y in lines.tolist():
        parts.append(
            Markup(
                '<path class="match-line" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>'
            ).format(
                left_start + x * left_width,
                y * _HEIGHT,
                right_start + other_x * right_width,
                other_y * _HEIGHT,
            )
        )
    return Markup(
        '<svg viewBox="0 0 {:.1f} {}" role="img" aria-label="{} and {}">{}'
        "</svg>"
    ).format(
        start - _GAP, _HEIGHT, left.name, right.name, Markup("").join(parts)
    )
