"""Cells of tables as spreadsheets, pandas and databases write them."""

import re

# Texts of a missing value, in lower case, as pandas, R, SQL, Python and
# spreadsheets write it. R's NA is one only where a number is expected: it is
# also the code of Namibia.
_MISSING = {
    *("", "nan", "-nan", "<na>", "nat", "none", "null", "nil", "#n/a", "n/a"),
    *("#ref!", "#value!", "#name?", "#null!", "#div/0!", "#num!"),
}
_MISSING_NUMBERS = _MISSING | {"na", "-", "--", "."}
# Texts that are hardly names of places, and may be.
_DOUBTFUL = _MISSING | {
    *("na", "-", "--", "?", "-1", "unknown", "undefined", "unnamed"),
}
# Excel's way to keep a text from becoming a number: ="0001".
_FORMULA = re.compile(r'="(.*)"', re.DOTALL)
# A number of more than 11 digits, as Excel writes it: only a few are left.
_ROUNDED = re.compile(r"\d(?:[.,]\d+)?E\+\d\d+")
# Characters around a cell that are not seen: blanks, byte order marks, and
# spaces without width.
_UNSEEN = " \t\r\n\v\f\u00a0\u200b\u2060\ufeff"


def clean(text: str) -> str:
    """Returns a cell without blanks around it and without `="..."`."""
    text = text.strip(_UNSEEN)
    formula = _FORMULA.fullmatch(text)
    return formula[1].strip(_UNSEEN) if formula else text


def is_missing(text: str, *, is_number: bool = False) -> bool:
    """Returns whether a cell stands for a missing value.

    Args:
        text: a clean cell.
        is_number: whether a number is expected.
    """
    return text.lower() in (_MISSING_NUMBERS if is_number else _MISSING)


def is_doubtful_name(text: str) -> bool:
    """Returns whether the name of a place is hardly one, such as "unknown"."""
    return text.lower() in _DOUBTFUL


def is_rounded(text: str) -> bool:
    """Returns whether a spreadsheet has rounded a number that was a name."""
    return bool(_ROUNDED.fullmatch(text.upper()))
