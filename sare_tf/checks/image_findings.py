"""What is found in the images: refused, unreadable, repeated, of odd sizes."""

import dataclasses
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from sare_tf.checks.finding import (
    ERROR,
    NOTE,
    WARNING,
    Finding,
    count,
    if_any,
    named,
    points_of,
)
from sare_tf.dataset import manifest
from sare_tf.dataset.readers.collector import ABSENT, NOT_IMAGE

# An image of which no side reaches this shows little of a place.
_TINY_PX = 64


@dataclasses.dataclass(frozen=True)
class Contents:
    """What was found in the images of a manifest of B rows.

    Attributes:
        problems: row -> why the image cannot be used.
        digests: uint8 [B, 16], of the bytes of each image.
        sizes: int32 [B, 2], height and width, upright; zeros if unknown.
        traits: name of `images.TRAITS` -> rows that have it.
    """

    problems: Mapping[int, str]
    digests: np.ndarray
    sizes: np.ndarray
    traits: Mapping[str, Sequence[int]]


def refused(rejected: Iterable[tuple[str, str]]) -> list[Finding]:
    """What the reader left out, by reason."""
    groups = {}
    for path, reason in rejected:
        # Numbers and quotations differ from image to image.
        kind = re.sub(r"'[^']*'|-?\d[\d.]*", "...", reason)
        groups.setdefault(kind, []).append((path, reason))
    found = []
    for images in groups.values():
        reason = images[0][1]
        severity, action = WARNING, "Correct the name or the list, or accept."
        if reason.endswith(ABSENT):
            severity = ERROR
            action = "Get the files, or take their lines out of the list."
        elif reason == NOT_IMAGE:
            severity, action = NOTE, "Convert those that are photographs."
        found.append(
            Finding(
                severity=severity,
                name="missing_file" if severity == ERROR else "left_out",
                message=f"{count(len(images), 'file')} left out: {reason}"
                + (" (and alike)." if len(images) > 1 else "."),
                action=action,
                images=images,
            )
        )
    return found


def unreadable(table: pd.DataFrame, contents: Contents) -> list[Finding]:
    """Images that cannot be decoded."""
    images = [
        (table["image_id"].iat[row], reason)
        for row, reason in sorted(contents.problems.items())
    ]
    return if_any(
        images,
        severity=ERROR,
        name="unreadable",
        message=f"{count(len(images), 'image')} cannot be decoded.",
        action="Get them again, convert or delete them: the builder leaves "
        "them out.",
    )


def duplicates(
    table: pd.DataFrame,
    contents: Contents,
    *,
    relations: pd.DataFrame | None,
    radius_m: float,
    by_timestamp: Collection[str] = (),
) -> list[Finding]:
    """Images of the same content, where they are not one file by design.

    Args:
        table: manifest of B rows.
        contents: its images.
        relations: of the dataset; a pair listed as junk is no finding.
        radius_m: copies farther apart contradict each other.
        by_timestamp: splits in which images of the query's timestamp are no
            answers, so that a query may be in the database.
    """
    junk = set()
    if relations is not None:
        chosen = relations[relations["relation"] == "junk"]
        junk = set(zip(chosen["query"], chosen["database"], strict=True))
    across, answered, repeated, elsewhere = [], [], [], []
    for rows in _alike(table, contents):
        copies = table.iloc[rows]
        ids = copies["image_id"].tolist()
        splits = copies["split"].tolist()
        if len(set(splits)) > 1:
            across += [
                (one, f"{split}; the same as {_other(one, ids)}")
                for one, split in zip(ids, splits, strict=True)
            ]
        members = {
            key: part["image_id"].tolist()
            for key, part in copies.groupby(["split", "role"])
        }
        for (split, role), same in members.items():
            if role == "query":
                database = members.get((split, "database"), [])
                times = copies.set_index("image_id")["timestamp"]
                times = times.to_dict() if split in by_timestamp else {}
                answered += _answered(same, database, split, junk, times)
            if len(set(map(_file, same))) > 1:
                repeated += [
                    (one, f"{split}/{role}; the same as {same[0]}")
                    for one in same[1:]
                ]
        if _apart(copies, radius_m):
            elsewhere += [
                (one, f"the same as {_other(one, ids)}, of another place")
                for one in ids
            ]
    is_judged = any(not detail.startswith("train") for _, detail in answered)
    return [
        *if_any(
            across,
            severity=ERROR,
            name="duplicates_across_splits",
            message=f"{count(len(across), 'image')} with a copy in another "
            "split: what is evaluated was trained on.",
            action="Keep each in one split and delete the copies.",
        ),
        *if_any(
            answered,
            severity=ERROR if is_judged else WARNING,
            name="queries_in_database",
            message=f"{count(len(answered), 'query', several='queries')} "
            "with a copy in the database of the split: found by itself.",
            action="Delete the copies from the database, or the queries.",
        ),
        *if_any(
            repeated,
            severity=WARNING,
            name="duplicates",
            message=f"{count(len(repeated), 'copy', several='copies')} of "
            "images of the same split and role.",
            action="Delete the copies: they add nothing but weight.",
        ),
        *if_any(
            elsewhere,
            severity=WARNING,
            name="duplicates_elsewhere",
            message=f"{count(len(elsewhere), 'image')} with a copy at another "
            f"place, or more than {radius_m:g} m away.",
            action="One of the places is wrong, or the picture shows none (a "
            "placeholder): correct or delete.",
        ),
    ]


def sizes(
    table: pd.DataFrame, contents: Contents, *, height: int, width: int
) -> list[Finding]:
    """Images that are tiny, upright among lying ones, or special.

    Args:
        table: the manifest.
        contents: its images.
        height: of the model's input.
        width: of the model's input.
    """
    measured = (contents.sizes > 0).all(axis=1)
    tiny = measured & (contents.sizes.max(axis=1) < _TINY_PX)
    found = if_any(
        named(table, tiny, lambda row: _size(contents.sizes[row])),
        severity=WARNING,
        name="tiny",
        message=f"{count(tiny.sum(), 'image')} with no side of {_TINY_PX} "
        "pixels.",
        action="Check that they are not previews or placeholders.",
    )
    small = measured & (contents.sizes < (height, width)).all(axis=1) & ~tiny
    if small.any():
        found.append(
            Finding(
                severity=NOTE,
                name="enlarged",
                message=f"{count(small.sum(), 'image')} smaller than the "
                f"model's input of {width} x {height}, to be enlarged.",
                action="A smaller --image_height and --image_width take less "
                "time.",
                count=int(small.sum()),
            )
        )
    upright = measured & (contents.sizes[:, 0] > contents.sizes[:, 1])
    lying = measured & (contents.sizes[:, 0] < contents.sizes[:, 1])
    if upright.any() and lying.any():
        found.append(
            Finding(
                severity=NOTE,
                name="both_orientations",
                message=f"{upright.sum():,} images are upright and "
                f"{lying.sum():,} lying; all become {width} x {height}, which "
                "distorts those of the other shape.",
                action="Nothing to do if queries and database are alike in it.",
                count=int(upright.sum()),
            )
        )
    words = {
        "turned": "turned upright by the EXIF header",
        "cmyk": "in CMYK, which becomes RGB",
        "16_bit": "with 16 bits per channel, of which the high 8 are used",
        "animated": "animated, of which the first picture is used",
    }
    return found + [
        Finding(
            severity=NOTE,
            name=trait,
            message=f"{count(len(rows), 'image')} {words[trait]}.",
            action="Nothing to do: training and the exported model do alike.",
            images=[(table["image_id"].iat[row], "") for row in rows],
        )
        for trait, rows in contents.traits.items()
        if len(rows)
    ]


def _size(size: np.ndarray) -> str:
    return f"{size[1]} x {size[0]}"


def _file(image_id: str) -> str:
    """The file that an image is, or is a part of."""
    return image_id.partition("#")[0]


def _other(one: str, ids: Sequence[str]) -> str:
    return next(other for other in ids if other != one)


def _answered(
    queries: Sequence[str],
    database: Sequence[str],
    split: str,
    junk: set[tuple[str, str]],
    times: Mapping[str, str],
) -> Iterator[tuple[str, str]]:
    """The queries that are an image of the database, too, and which."""
    for query in queries:
        time = times.get(query)
        for image in database:
            if (
                _file(query) != _file(image)
                and (query, image) not in junk
                and not (time and time == times[image])
            ):
                yield query, f"{split}; the same as {image}"
                break


def _alike(table: pd.DataFrame, contents: Contents) -> Iterator[np.ndarray]:
    """Rows of the same content, of at least two files."""
    usable = np.ones(len(table), bool)
    usable[list(contents.problems)] = False
    rows = np.flatnonzero(usable)
    keys = np.ascontiguousarray(contents.digests[rows]).view("V16")[:, 0]
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    ends = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    for group in np.split(rows[order], ends):
        if len(group) < 2:
            continue
        if len(set(map(_file, table["image_id"].iloc[group]))) > 1:
            yield np.sort(group)


def _apart(copies: pd.DataFrame, radius_m: float) -> bool:
    """Whether copies of one image are said to be of different places."""
    points = points_of(copies)
    if np.isfinite(points).all():
        span = np.ptp(points, axis=0)
        one_grid = len(set(manifest.grids(copies))) == 1
        return not one_grid or float(np.hypot(*span)) > radius_m
    return copies["place_id"].nunique() > 1
