"""Reads the warehouse's tables without Spark or Java: top-K lists, metrics, runs, tables, SQL; and the rollback.

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from sparkrec.errors import UserError
from sparkrec.store import Warehouse
from sparkrec.tables import (
    CURRENT,
    ID,
    ITEM_ID,
    ITEMS_TABLE,
    KEY_TYPE,
    METRICS,
    MODEL_VERSION,
    RANK,
    RUN_DATE,
    RUNS,
    TABLES,
    USER_ID,
    Table,
)

if TYPE_CHECKING:
    import polars as pl
    from deltalake import DeltaTable

TITLE = "title"
LATEST = "latest"
FORMATS = ("table", "json", "csv")
MAX_TABLE_ROWS = 1000  # rows shown by the format made for eyes; the others give all
RUNS_SHORT = (
    RUN_DATE, "stage", "status", "started_at", "seconds", "rows_in", "rows_out", "rows_quarantined", "rows_duplicate",
    "message",
)  # fmt: skip

# A query starts with one of these words. Nothing may come before it but blanks, brackets and line comments: a nested
# block comment would be read differently by the SQL parser than here and could hide another statement.
_QUERY_START = re.compile(r"(?:\s|--[^\n]*\n|\()*(?:select|with|values)\b", re.IGNORECASE)


def topk(warehouse: Warehouse, model: str, user: str, *, run_date: str = LATEST, k: int | None = None) -> pl.DataFrame:
    """The published list of a user, best first, with titles where the items have them.

    Args:
        warehouse: Where the tables are.
        model: als, gru or two_tower.
        user: The user's id as in the log; for the GRU also the session id of an anonymous session.
        run_date: ``YYYY-MM-DD``, or ``latest``: the night that is current.
        k: At most so many items, or None for the whole list.

    Returns:
        The table's columns, and ``title`` after ``item_id`` where the table ``items`` has one.

    Raises:
        UserError: Unknown model, night or user; a table is missing or damaged.
    """
    import polars as pl

    table = _topk_table(model)
    _require_text("user", user)
    opened = _open(warehouse, table)
    night = _current(warehouse, model) if run_date == LATEST else None
    night = night or _night(opened, table, run_date)
    wanted = pl.col(USER_ID) == pl.lit(user)
    wanted = wanted if k is None else wanted & (pl.col(RANK) <= k)
    found = _read(opened, table, table.column_names, wanted, night)
    if found.is_empty():
        raise UserError(
            f"no {model} list of this user on {night}",
            where=f"user {user}",
            fix="check the id, or give another --run-date",
        )
    order = [c for c in (KEY_TYPE, RANK) if c in found.columns]
    return _with_titles(warehouse, found.sort(order))


def rollback(warehouse: Warehouse, to: str, models: Sequence[str] = ()) -> pl.DataFrame:
    """Makes the lists of an earlier (or later) published night current again. No list is changed or removed.

    Args:
        warehouse: Where the tables are.
        to: The night, ``YYYY-MM-DD``.
        models: The models; by default all that ``current`` names.

    Returns:
        The rows of ``current`` after it.

    Raises:
        UserError: A model has no lists of that night; nothing is changed then.
    """
    import polars as pl

    opened = _open(warehouse, CURRENT)
    known = _read(opened, CURRENT, CURRENT.column_names, pl.lit(True))["model"].to_list()
    for model in models:
        _require_known("model", model, known)
    chosen = list(models) or known
    versions = {}
    for model in chosen:
        table = _topk_table(model)
        lists = _open(warehouse, table)
        night = _night(lists, table, to)
        versions[model] = _read(lists, table, [MODEL_VERSION], pl.lit(True), night)[MODEL_VERSION][0]
    now = datetime.now(UTC)
    rows = pl.DataFrame(
        [(model, date.fromisoformat(to), version, now) for model, version in versions.items()],
        schema={"model": pl.String, RUN_DATE: pl.Date, MODEL_VERSION: pl.String, "since": pl.Datetime("us", "UTC")},
        orient="row",
    )
    merge = opened.merge(rows, predicate="t.model = s.model", source_alias="s", target_alias="t")
    merge.when_matched_update_all().execute()
    return _read(_open(warehouse, CURRENT), CURRENT, CURRENT.column_names, pl.lit(True)).sort("model")


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

    opened = _open(warehouse, METRICS)
    night = None if run_date is None else _night(opened, METRICS, run_date)
    found = _read(opened, METRICS, METRICS.column_names, pl.lit(True), night)
    if model is not None:
        _require_known("model", model, found["model"].unique().to_list())
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

    found = _read(_open(warehouse, RUNS), RUNS, RUNS.column_names, pl.lit(True))
    if run_date is not None:
        nights = found[RUN_DATE].unique().to_list()
        found = found.filter(pl.col(RUN_DATE) == _choose_night(nights, RUNS, run_date))
    if stage is not None:
        _require_known("stage", stage, found["stage"].unique().to_list())
        found = found.filter(pl.col("stage") == pl.lit(stage))
    return found.sort("started_at", "ended_at")


def runs_short(ledger: pl.DataFrame) -> pl.DataFrame:
    """The ledger's columns that fit on a screen, with the duration in ``seconds``."""
    import polars as pl

    seconds = (pl.col("ended_at") - pl.col("started_at")).dt.total_milliseconds() / 1000
    return ledger.with_columns(seconds.round(1).alias("seconds")).select(RUNS_SHORT)


def tables(warehouse: Warehouse) -> pl.DataFrame:
    """The tables that exist: name, rows, version, files, size in bytes, comment.

    Raises:
        UserError: No warehouse, no table in it, or a damaged one.
    """
    import polars as pl

    present = _present(warehouse)
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

    _require_text("query", query)
    if not _QUERY_START.match(query):
        raise UserError(
            "only queries are run", where=_shorten(query), fix="start with SELECT, WITH or VALUES; tables are read-only"
        )
    present = _present(warehouse)
    builder = QueryBuilder()
    for table in present:
        if re.search(rf"\b{table.name}\b", query):
            builder = builder.register(table.name, _open(warehouse, table))
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


def _topk_table(model: str) -> Table:
    known = [name.removeprefix("topk_") for name in TABLES if name.startswith("topk_")]
    _require_known("model", model, known)
    return TABLES[f"topk_{model}"]


def _require_known(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(f"unknown {what}", where=value, fix=f"one of {', '.join(sorted(known)) or '(none yet)'}")


def _require_text(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # bytes of the command line that are no UTF-8
        raise UserError(f"{what} is not UTF-8 text", where=ascii(text)) from error


def _check_warehouse(warehouse: Warehouse) -> None:
    if not warehouse.path:
        raise UserError("no warehouse given", fix="add warehouse.path=DIR, or --conf with one in it")
    if "://" not in warehouse.path and not Path(warehouse.path).is_dir():
        raise UserError("no such warehouse", where=warehouse.path, fix="check warehouse.path, or run sparkrec nightly")


def _exists(warehouse: Warehouse, table: Table) -> bool:
    from deltalake import DeltaTable

    try:
        return DeltaTable.is_deltatable(warehouse.table_path(table))
    except Exception as error:  # storage back ends raise many kinds
        raise _unreadable(warehouse.table_path(table), error) from error


def _present(warehouse: Warehouse) -> list[Table]:
    _check_warehouse(warehouse)
    return [table for table in TABLES.values() if _exists(warehouse, table)]


def _open(warehouse: Warehouse, table: Table) -> DeltaTable:
    from deltalake import DeltaTable

    _check_warehouse(warehouse)
    if not _exists(warehouse, table):
        raise UserError("no such table yet", where=warehouse.table_path(table), fix="run sparkrec nightly first")
    try:
        return DeltaTable(warehouse.table_path(table))
    except Exception as error:
        raise _unreadable(warehouse.table_path(table), error) from error


def _unreadable(where: str, error: Exception) -> UserError:
    return UserError("table cannot be read", where=where, fix=_first_line(error))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _read(
    opened: DeltaTable, table: Table, columns: Sequence[str], wanted: pl.Expr, night: date | None = None
) -> pl.DataFrame:
    """The wanted rows of a table or of one of its nights, read piece by piece."""
    import polars as pl

    predicate = None if night is None else f"{RUN_DATE} = '{night.isoformat()}'"  # a date, not the user's text
    try:
        reader = opened.scan(columns=list(columns), predicate=predicate)
        pieces = [_frame([], reader.schema)]
        pieces += [_frame([batch], reader.schema).filter(wanted) for batch in reader]
        return pl.concat(pieces).select(columns)
    except Exception as error:  # a missing or broken data file, a column that is not there
        raise _unreadable(table.name, error) from error


def _night(opened: DeltaTable, table: Table, run_date: str) -> date:
    nights = {part[RUN_DATE] for part in opened.partitions()}
    return _choose_night([date.fromisoformat(str(night)) for night in nights if night], table, run_date)


def _current(warehouse: Warehouse, model: str) -> date | None:
    """The night whose lists of a model are current, as ``current`` says; None where it says nothing."""
    import polars as pl

    if not _exists(warehouse, CURRENT):
        return None
    rows = _read(_open(warehouse, CURRENT), CURRENT, CURRENT.column_names, pl.col("model") == pl.lit(model))
    return rows[RUN_DATE][0] if rows.height else None


def _choose_night(nights: Sequence[date], table: Table, run_date: str) -> date:
    if not nights:
        raise UserError("no night in the table yet", where=table.name, fix="run sparkrec nightly first")
    if run_date == LATEST:
        return max(nights)
    try:
        chosen = date.fromisoformat(run_date)
    except ValueError as error:
        raise UserError("run date is not YYYY-MM-DD", where=run_date, fix="or say latest") from error
    if chosen not in nights:
        span = f"there are {len(nights)}, from {min(nights)} to {max(nights)}"
        raise UserError("no such night", where=f"{chosen} in {table.name}", fix=span)
    return chosen


def _with_titles(warehouse: Warehouse, lists: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    if not _exists(warehouse, ITEMS_TABLE):
        return lists
    items = _open(warehouse, ITEMS_TABLE)
    if TITLE not in [field.name for field in items.schema().fields]:
        return lists
    titles = _read(items, ITEMS_TABLE, [ID, TITLE], pl.col(ID).is_in(lists[ITEM_ID].to_list()))
    joined = lists.join(titles.unique(ID), left_on=ITEM_ID, right_on=ID, how="left", maintain_order="left")
    at = lists.columns.index(ITEM_ID) + 1
    return joined.select(*lists.columns[:at], TITLE, *lists.columns[at:])


def _describe(warehouse: Warehouse, table: Table) -> tuple[Any, ...]:
    import polars as pl

    opened = _open(warehouse, table)
    try:
        files = pl.DataFrame(opened.get_add_actions(flatten=True)).select("num_records", "size_bytes")
    except Exception as error:
        raise _unreadable(warehouse.table_path(table), error) from error
    rows = None if files["num_records"].null_count() else files["num_records"].sum()
    return table.name, rows, opened.version(), files.height, files["size_bytes"].sum(), table.comment


def _batches(execute: Callable[[], Any], query: str, hint: str) -> Iterator[pl.DataFrame]:
    try:
        reader = execute()
        schema = reader.schema
        _refuse_intervals(schema)
        yield _frame([], schema)
        for batch in reader:
            yield _frame([batch], schema)
    except (UserError, BrokenPipeError):
        raise
    except Exception as error:  # the engine raises one kind for syntax, planning, and damaged files
        reason = _first_line(error)
        raise UserError(f"query failed: {reason}", where=_shorten(query), fix=hint) from error


def _refuse_intervals(schema: Any) -> None:
    for field in schema:
        if "interval" in str(field.type).lower():
            raise UserError("an interval cannot be shown", where=field.name, fix="cast it to varchar")


def _frame(batches: list[Any], schema: Any) -> pl.DataFrame:
    import polars as pl
    from arro3.core import Table as ArrowTable

    return pl.DataFrame(ArrowTable.from_batches(batches, schema=schema).rename_columns(_distinct(schema.names)))


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, with ``_2``, ``_3``, … added to those that occurred before."""
    out: list[str] = []
    for name in names:
        chosen, n = name, 1
        while chosen in out:
            n += 1
            chosen = f"{name}_{n}"
        out.append(chosen)
    return out


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
