"""Raw rows: what every reader makes of a log, whatever it is written in.

A raw DataFrame has a column for each log column that the format names and the log has, or the folders of a file's path
(``event=click/``), as text (timestamps of typed files and tables stay timestamps), and ``_raw`` (the row as written),
``_fault`` (why it cannot be taken apart, or null) and ``_uri`` (its file). Where the place of a row matters, ``_block``
and ``_row`` tell it: within a file, rows are in the order of both.
"""

from __future__ import annotations

from collections.abc import Sequence

from sparkrec.errors import UserError

RAW, FAULT, URI = "_raw", "_fault", "_uri"
BLOCK, ROW = "_block", "_row"  # where a row is: the first byte of its part of the file, its number among what is read
NOT_UTF8 = "not UTF-8"
INEXACT = "id too large for a"


def require_columns(what: str, where: str, columns: Sequence[str], required: Sequence[tuple[str, ...]]) -> None:
    """Raises UserError where a log has none of the names that a required column may go by.

    Args:
        what: What it is: a log file, a log table.
        where: Which one.
        columns: The columns that it has.
        required: For each required column the names it may have.
    """
    for names in required:
        if not any(name in columns for name in names):
            fix = f"the {what.split()[-1]} has {', '.join(columns)[:300]}"
            raise UserError(f"{what} lacks column {' or '.join(names)}", where=where, fix=fix)
