"""Reads the warehouse's tables without Spark or Java: top-K lists, metrics, runs, tables, SQL.

Only deltalake and polars are needed, so a command starts in a fraction of a second. What users type reaches the
tables as literals of polars expressions, never as part of a path or of an SQL text; the one SQL text that is run is
the user's own, and only where it is a query.
"""

from __future__ import annotations

import csv
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TextIO

from sparkrec.errors import UserError
from sparkrec.reading import (
    LATEST,
    choose_night,
    current_nights,
    exists,
    first_line,
    night_in,
    open_table,
    present_tables,
    read_rows,
    require_known,
    require_text,
    similar_table,
    to_frame,
    unreadable,
    user_lists_table,
)
from sparkrec.store import Warehouse
from sparkrec.tables import (
    ID,
    ITEM_ID,
    ITEMS_TABLE,
    KEY_TYPE,
    METRICS,
    RANK,
    RUN_DATE,
    RUNS,
    SIMILAR_ITEM_ID,
    USER_ID,
    Table,
)

if TYPE_CHECKING:
    import polars as pl

TITLE = "title"
FORMATS = ("table", "json", "csv")
MAX_TABLE_ROWS = 1000  # rows shown by the format made for eyes; the others give all
RUNS_SHORT = (
    RUN_DATE, "stage", "status", "started_at", "seconds", "jobs", "rows_in", "rows_out", "rows_quarantined",
    "rows_duplicate", "message",
)  # fmt: skip

# A query starts with one of these words. Nothing may come before it but blanks, brackets and line comments: a nested
# block comment would be read differently by the SQL parser than here and could hide another statement.
_QUERY_START = re.compile(r"(?:\s|--[^\n]*\n|\()*(?:select|with|values)\b", re.IGNORECASE)


def topk(warehouse: Warehouse, model: str, user: str, *, run_date: str = LATEST, k: int | None = None) -> pl.DataFrame:
    """The published list of a user, best first, with titles where the items have them.

    Args:
        warehouse: Where the tables are.
        model: A model whose lists are for users, sessions or baskets.
        user: The user's id as in the log; also the id of an anonymous session or basket.
        run_date: ``YYYY-MM-DD``, or ``latest``: the night that is current.
        k: At most so many items, or None for the whole list.

    Returns:
        The table's columns, and ``title`` after ``item_id`` where the table ``items`` has one.

    Raises:
        UserError: Unknown model, night or user; a table is missing or damaged.
    """
    require_text("user", user)
    found = _list_of(warehouse, model, user_lists_table(model), (USER_ID, user), run_date, k)
    order = [c for c in (KEY_TYPE, RANK) if c in found.columns]
    return _with_titles(warehouse, found.sort(order), ITEM_ID)


def similar_users(
    warehouse: Warehouse, model: str, user: str, *, run_date: str = LATEST, k: int | None = None
) -> pl.DataFrame:
    """The users beside a user, the nearest first: the table's columns; arguments and errors as in ``similar``."""
    require_text("user", user)
    return _list_of(warehouse, model, similar_table(model, users=True), (USER_ID, user), run_date, k).sort(RANK)


def similar(
    warehouse: Warehouse, model: str, item: str, *, run_date: str = LATEST, k: int | None = None
) -> pl.DataFrame:
    """The items beside an item, the nearest first.

    Args:
        warehouse: Where the tables are.
        model: A model that has items beside items.
        item: The item's id as in the log.
        run_date: ``YYYY-MM-DD``, or ``latest``: the night that is current.
        k: At most so many items, or None for the whole list.

    Returns:
        The table's columns, and ``title`` after ``similar_item_id`` where the table ``items`` has one.

    Raises:
        UserError: Unknown model, night or item; a table is missing or damaged.
    """
    require_text("item", item)
    found = _list_of(warehouse, model, similar_table(model), (ITEM_ID, item), run_date, k)
    return _with_titles(warehouse, found.sort(RANK), SIMILAR_ITEM_ID)


def _list_of(
    warehouse: Warehouse, model: str, table: Table, key: tuple[str, str], run_date: str, k: int | None
) -> pl.DataFrame:
    """The rows of one list of a night."""
    import polars as pl

    opened = open_table(warehouse, table)
    night = current_nights(warehouse).get(model) if run_date == LATEST else None
    night = night or night_in(opened, table, run_date)
    column, value = key
    wanted = pl.col(column) == pl.lit(value)
    wanted = wanted if k is None else wanted & (pl.col(RANK) <= k)
    found = read_rows(opened, table, table.column_names, wanted, night)
    if found.is_empty():
        what = column.removesuffix("_id")
        raise UserError(
            f"no {model} list of this {what} on {night}",
            where=f"{what} {value}",
            fix="check the id, or give another --run-date",
        )
    return found


def metrics(warehouse: Warehouse, *, run_date: str | None = None, model: str | None = None) -> pl.DataFrame:
    """Hold-out metrics, by night, model, metric and k.

    Args:
        warehouse: Where the tables are.
        run_date: One night (``YYYY-MM-DD`` or ``latest``), or None for all.
        model: One model or baseline, or None for all.

    Raises:
        UserError: Unknown night or model; the table is missing or damaged.
    """
    import polars as pl

    opened = open_table(warehouse, METRICS)
    night = None if run_date is None else night_in(opened, METRICS, run_date)
    found = read_rows(opened, METRICS, METRICS.column_names, pl.lit(True), night)
    if model is not None:
        require_known("model", model, found["model"].unique().to_list())
        found = found.filter(pl.col("model") == pl.lit(model))
    return found.sort(RUN_DATE, "split", "model", "metric", "k", nulls_last=True)


def runs(warehouse: Warehouse, *, run_date: str | None = None, stage: str | None = None) -> pl.DataFrame:
    """The ledger: a row for each stage that ended, in order of time.

    Args:
        warehouse: Where the tables are.
        run_date: One night (``YYYY-MM-DD`` or ``latest``), or None for all.
        stage: One stage, or None for all.

    Raises:
        UserError: Unknown night or stage; the table is missing or damaged.
    """
    import polars as pl

    found = read_rows(open_table(warehouse, RUNS), RUNS, RUNS.column_names, pl.lit(True))
    if run_date is not None:
        nights = found[RUN_DATE].unique().to_list()
        found = found.filter(pl.col(RUN_DATE) == choose_night(nights, RUNS, run_date))
    if stage is not None:
        require_known("stage", stage, found["stage"].unique().to_list())
        found = found.filter(pl.col("stage") == pl.lit(stage))
    return found.sort("started_at", "ended_at")


def runs_short(ledger: pl.DataFrame) -> pl.DataFrame:
    """The ledger's columns that fit on a screen, with the duration in ``seconds``."""
    import polars as pl

    between = (pl.col("ended_at") - pl.col("started_at")).dt.total_milliseconds() / 1000
    seconds = pl.coalesce(pl.col("seconds"), between)  # an earlier version of the package recorded none
    return ledger.with_columns(seconds.round(1).alias("seconds")).select(RUNS_SHORT)


def tables(warehouse: Warehouse) -> pl.DataFrame:
    """The tables that exist: name, rows, version, files, size in bytes, comment.

    Raises:
        UserError: No warehouse, no table in it, or a damaged one.
    """
    import polars as pl

    present = present_tables(warehouse)
    if not present:
        raise UserError("no tables in the warehouse", where=warehouse.path, fix="run sparkrec nightly first")
    schema = {
        "name": pl.String, "rows": pl.Int64, "version": pl.Int64, "files": pl.Int64, "size_bytes": pl.Int64,
        "comment": pl.String,
    }  # fmt: skip
    return pl.DataFrame([_describe(warehouse, table) for table in present], schema=schema, orient="row")


def sql(warehouse: Warehouse, query: str) -> Iterator[pl.DataFrame]:
    """Runs one read-only query over the tables, by their names.

    Args:
        warehouse: Where the tables are.
        query: SELECT, WITH or VALUES in DataFusion's dialect. Names of tables and columns keep their case.

    Returns:
        The result in pieces, at least one; equal column names are told apart by ``_2``, ``_3``, …

    Raises:
        UserError: Not a single query, a wrong query, or a table that it names is damaged.
    """
    from deltalake import QueryBuilder

    require_text("query", query)
    if not _QUERY_START.match(query):
        raise UserError(
            "only queries are run", where=_shorten(query), fix="start with SELECT, WITH or VALUES; tables are read-only"
        )
    present = present_tables(warehouse)
    builder = QueryBuilder()
    for table in present:
        if re.search(rf"\b{table.name}\b", query):
            builder = builder.register(table.name, open_table(warehouse, table))
    names = ", ".join(table.name for table in present) or "none"
    return _batches(lambda: builder.execute(query), query, f"tables: {names}")


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


def _with_titles(warehouse: Warehouse, lists: pl.DataFrame, column: str) -> pl.DataFrame:
    """Lists with the titles of the items in a column, beside it."""
    import polars as pl

    if not exists(warehouse, ITEMS_TABLE):
        return lists
    items = open_table(warehouse, ITEMS_TABLE)
    if TITLE not in [field.name for field in items.schema().fields]:
        return lists
    titles = read_rows(items, ITEMS_TABLE, [ID, TITLE], pl.col(ID).is_in(lists[column].to_list()))
    joined = lists.join(titles.unique(ID), left_on=column, right_on=ID, how="left", maintain_order="left")
    at = lists.columns.index(column) + 1
    return joined.select(*lists.columns[:at], TITLE, *lists.columns[at:])


def _describe(warehouse: Warehouse, table: Table) -> tuple[Any, ...]:
    import polars as pl

    opened = open_table(warehouse, table)
    try:
        files = pl.DataFrame(opened.get_add_actions(flatten=True)).select("num_records", "size_bytes")
    except Exception as error:
        raise unreadable(warehouse.table_path(table), error) from error
    rows = None if files["num_records"].null_count() else files["num_records"].sum()
    return table.name, rows, opened.version(), files.height, files["size_bytes"].sum(), table.comment


def _batches(execute: Callable[[], Any], query: str, hint: str) -> Iterator[pl.DataFrame]:
    try:
        reader = execute()
        schema = reader.schema
        _refuse_intervals(schema)
        yield to_frame([], schema)
        for batch in reader:
            yield to_frame([batch], schema)
    except (UserError, BrokenPipeError):
        raise
    except Exception as error:  # the engine raises one kind for syntax, planning, and damaged files
        reason = first_line(error)
        raise UserError(f"query failed: {reason}", where=_shorten(query), fix=hint) from error


def _refuse_intervals(schema: Any) -> None:
    for field in schema:
        if "interval" in str(field.type).lower():
            raise UserError("an interval cannot be shown", where=field.name, fix="cast it to varchar")


def _shorten(text: str, width: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


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
