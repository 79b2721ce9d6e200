"""Findings in the names of places: those that hardly name one place."""

import unicodedata

import pandas as pd

from sare_tf.checks.finding import WARNING, Finding, count, if_any
from sare_tf.dataset.readers import table_cells


def place_names(table: pd.DataFrame) -> list[Finding]:
    """Finds images without a place, and names that hardly name one place."""
    places = table["place_id"]
    if places.eq("").all():
        return []
    return [
        *_without(table, places.eq("")),
        *_doubtful(table, places.ne("") & places.map(_is_doubtful)),
        *_similar(table),
    ]


def _is_doubtful(place: str) -> bool:
    return table_cells.is_doubtful_name(place) or table_cells.is_rounded(place)


def _without(table: pd.DataFrame, marked: pd.Series) -> list[Finding]:
    return if_any(
        _with_places(table[marked]),
        severity=WARNING,
        name="no_place",
        message=f"{count(marked.sum(), 'image')} of {len(table):,} without a "
        "place, though others have one.",
        action="Positives by place_id need a place of every image: add theirs, "
        "or leave them out.",
    )


def _doubtful(table: pd.DataFrame, marked: pd.Series) -> list[Finding]:
    names = sorted(set(table["place_id"][marked]))
    return if_any(
        _with_places(table[marked]),
        severity=WARNING,
        name="doubtful_place",
        message=f"{count(marked.sum(), 'image')} of places that are hardly "
        f"places: {', '.join(map(repr, names[:5]))}.",
        action="All images of a name count as one place. If the place is not "
        "known, leave it empty, or leave the images out.",
    )


def _similar(table: pd.DataFrame) -> list[Finding]:
    """Finds places whose names differ as spreadsheets change them."""
    names = pd.Series(table["place_id"].unique())
    keys = names[names != ""].map(_key)
    similar = keys[keys.duplicated(keep=False)]
    if similar.empty:
        return []
    first = names[similar.index[similar == similar.iloc[0]]].tolist()
    marked = table["place_id"].isin(names[similar.index])
    return if_any(
        _with_places(table[marked]),
        severity=WARNING,
        name="similar_places",
        message=f"{count(similar.nunique(), 'place')} under several names, "
        f"such as {' and '.join(map(repr, first[:3]))}.",
        action="If they are the same place, write them in the same way.",
    )


def _key(name: str) -> str:
    """Returns the same text for names that a spreadsheet may exchange."""
    name = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    whole = name.removesuffix(".0")
    return whole.lstrip("0") or "0" if whole.isdecimal() else name


def _with_places(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return [
        (image, f"place {place!r}")
        for image, place in zip(rows["image_id"], rows["place_id"], strict=True)
    ]
