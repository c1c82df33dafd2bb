"""Results as text: aligned for eyes, or JSON and CSV that parse back."""

from __future__ import annotations

import csv
import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TextIO

from sparkrec.errors import UserError

if TYPE_CHECKING:
    import polars as pl

FORMATS = ("table", "json", "csv")
MAX_TABLE_ROWS = 1000  # rows shown by the format made for eyes; the others give all


def render(frames: Iterable[pl.DataFrame], form: str, out: TextIO) -> int:
    """Writes a result as text.

    Args:
        frames: The result in pieces with equal columns.
        form: ``table``: aligned columns, at most 1,000 rows; ``json``: one object a line; ``csv``: with a header.
            Times are ISO 8601 in UTC, what has no value is empty (``null`` in JSON).
        out: Where to write.

    Returns:
        The number of rows written.

    Raises:
        UserError: Unknown format.
    """
    writers: dict[str, Callable[[Iterable[pl.DataFrame], TextIO], int]] = {
        "table": _write_table, "json": _write_json, "csv": _write_csv,
    }  # fmt: skip
    if form not in writers:
        raise UserError("unknown output format", where=form, fix=f"one of {', '.join(FORMATS)}")
    return writers[form](frames, out)


def _rows(frame: pl.DataFrame) -> Iterator[tuple[Any, ...]]:
    """The rows with values that JSON and CSV can hold. Float32 keeps its shortest digits (0.1, not 0.10000000149)."""
    import polars as pl
    import polars.selectors as cs

    shortened = frame.with_columns(cs.by_dtype(pl.Float32).cast(pl.String).cast(pl.Float64))
    for row in shortened.iter_rows():
        yield tuple(map(_value, row))


def _value(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat() + "Z" if _is_utc(value) else value.isoformat()
    if isinstance(value, dict):
        return {key: _value(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_value(inner) for inner in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Decimal):
        return float(value)
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _is_utc(value: datetime) -> bool:
    return not value.utcoffset()  # no zone, or an offset of zero: all times in the tables are UTC


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _write_json(frames: Iterable[pl.DataFrame], out: TextIO) -> int:
    count = 0
    for frame in frames:
        for row in _rows(frame):
            out.write(_dump(dict(zip(frame.columns, row, strict=True))) + "\n")
        count += frame.height
    return count


def _cell(value: Any) -> Any:
    return _dump(value) if isinstance(value, (list, dict)) else value


def _write_csv(frames: Iterable[pl.DataFrame], out: TextIO) -> int:
    writer = csv.writer(out, lineterminator="\n")
    # The module quotes its own line end alone, but a reader takes a bare carriage return for one too.
    quoting = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    count, header = 0, True
    for frame in frames:
        if header:
            writer.writerow(frame.columns)
            header = False
        for row in _rows(frame):
            cells = [_cell(value) for value in row]
            broken = any(isinstance(cell, str) and "\r" in cell for cell in cells)
            (quoting if broken else writer).writerow(cells)
        count += frame.height
    return count


def _write_table(frames: Iterable[pl.DataFrame], out: TextIO) -> int:
    columns: list[str] = []
    rows: list[list[str]] = []
    more = False
    numeric: list[bool] = []
    for frame in frames:
        columns = frame.columns
        numeric = [t.is_numeric() for t in frame.dtypes]
        room = MAX_TABLE_ROWS - len(rows)
        rows += [[_printable(v) for v in row] for row in _rows(frame.head(room))]
        more = frame.height > room
        if more:
            break
    cells = [[_printable(c) for c in columns], *rows]
    widths = [max(_width(row[j]) for row in cells) for j in range(len(columns))]
    for n, row in enumerate(cells):
        out.write("  ".join(map(_pad, row, widths, numeric)).rstrip() + "\n")
        if n == 0:
            out.write("  ".join("-" * width for width in widths) + "\n")
    if more:
        out.write(f"… only the first {MAX_TABLE_ROWS} rows are shown; --format csv or json gives all\n")
    return len(rows)


def _printable(value: Any) -> str:
    """A cell on one line; control characters, which could steer the terminal, are escaped."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(_cell(value))
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)


def _pad(text: str, width: int, right: bool) -> str:
    blanks = " " * (width - _width(text))
    return blanks + text if right else text + blanks
