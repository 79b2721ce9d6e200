"""What a request of the page of `locate` says is known of its photograph.

    near=LAT,LON  within_m=...  taken_from=...  taken_until=...
    condition=...  place_id=...  region={"type": "Polygon", ...}

`condition` and `place_id` may stand several times. `Prior` says what each
means.
"""

from typing import Any

from werkzeug.datastructures import MultiDict

from sare_tf.search import region as regions
from sare_tf.search.prior import Prior
from sare_tf.search.prior_rows import PriorRows


def read(arguments: MultiDict) -> Prior | None:
    """Returns the prior of a request; None if nothing is known.

    Args:
        arguments: of the query of its address. Empty ones count as absent.

    Raises:
        ValueError: one of them cannot be read, see `Prior`.
    """
    given: dict[str, Any] = {
        name: arguments[name]
        for name in ("taken_from", "taken_until")
        if arguments.get(name)
    }
    if arguments.get("near"):
        given["near"] = tuple(
            _number("near", part) for part in arguments["near"].split(",")
        )
    if arguments.get("within_m"):
        given["within_m"] = _number("within_m", arguments["within_m"])
    if arguments.get("region"):
        given["region"] = regions.parse(arguments["region"])
    for name, several in (
        ("condition", "conditions"),
        ("place_id", "place_ids"),
    ):
        values = tuple(filter(None, arguments.getlist(name)))
        if values:
            given[several] = values
    return Prior(**given) if given else None


def fields_of(rows: PriorRows) -> dict[str, Any]:
    """Returns which fields the page shows: those that an index can search by.

    Args:
        rows: of the index.
    """
    return {
        "position": rows.has_degrees,
        "places": rows.has_places,
        "time": rows.has_times,
        "conditions": rows.conditions,
    }


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        example = "41.8902,12.4922" if name == "near" else "2000"
        raise ValueError(
            f"Expected {name} as {example}. Received: {name}={text[:40]!r}."
        ) from error
