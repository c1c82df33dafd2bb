"""The one spelling of an id that a format's ``normalize`` gives it, as readers without Spark need it.

``ingest.values.pick_id`` does the same to the columns of a log.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

BLANKS = " \t\n\v\f\r\u00a0\u2007\u202f\u3000\u200b\ufeff"  # what is no part of an id, no-break and zero width too
# A whole number as Java ("1.2345678E7") and C or Python ("1e+16") write it; codes as 7E15 are none.
EXPONENT = r"^-?(\d\.\d+E\d+|\d(\.\d+)?e\+\d+)$"
EXACT = {"double": 1 << 53, "float": 1 << 24}  # up to here a type holds every whole number


def spelt(text: str, steps: Sequence[str]) -> str:
    """An id as ``events`` has it.

    Args:
        text: As somebody writes it.
        steps: See ``formats.Field.normalize``.
    """
    if "trim" in steps:
        text = text.strip(BLANKS)
    if "nfc" in steps:
        text = unicodedata.normalize("NFC", text)
    if "integer" in steps:
        text = _integer(text)
    if "upper" in steps or "lower" in steps:
        text = text.upper() if "upper" in steps else text.lower()
    return text


def _integer(text: str) -> str:
    """17850.0 and 1.785E4 as 17850; any other text, and a number too large to be exact, as it is."""
    if re.search(EXPONENT, text, re.ASCII):
        number = float(text)
        return str(int(number)) if number.is_integer() and abs(number) <= EXACT["double"] else text
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text, flags=re.ASCII)
