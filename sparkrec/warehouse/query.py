"""Reads the warehouse's tables without Spark or Java: top-K lists, metrics, runs, tables, SQL.

Only deltalake and polars are needed, so a command starts in a fraction of a second. What users type reaches the
tables as literals of polars expressions, never as part of a path or of an SQL text; the one SQL text that is run is
the user's own, and only where it is a query.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sparkrec.errors import UserError
from sparkrec.settings.format_files import load_format
from sparkrec.settings.ids import spelt
from sparkrec.storage.files import first_line
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.reading import (
    LATEST,
    choose_night,
    current_nights,
    exists,
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
from sparkrec.warehouse.tables import (
    ID,
    ITEM_ID,
    ITEMS_TABLE,
    KEY_TYPE,
    METRICS,
    PARTS,
    PROTOCOL,
    RANK,
    RUN_DATE,
    RUNS,
    SIMILAR_ITEM_ID,
    USER_ID,
    VALUE,
    Table,
)

if TYPE_CHECKING:
    from datetime import date

    import polars as pl

TITLE = "title"
METRIC_ORDER = ("recall", "ndcg", "map", "mrr", "hit_rate", "coverage", "gini")  # then the others by name
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
        user: The user's id, spelt as in the log or as in the tables; also that of an anonymous session or basket.
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
        item: The item's id, spelt as in the log or as in the tables.
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
    (column, value), short = key, pl.lit(True) if k is None else pl.col(RANK) <= k
    found = read_rows(opened, table, table.column_names, (pl.col(column) == pl.lit(value)) & short, night)
    if not found.is_empty():
        return found
    alike = pl.col(column).str.strip_chars().str.to_lowercase() == pl.lit(value).str.strip_chars().str.to_lowercase()
    others = sorted(_spellings(warehouse, column, value, night))
    found = read_rows(opened, table, table.column_names, alike | pl.col(column).is_in(others), night)
    same = found.filter(pl.col(column).is_in(others) & short)
    if same.is_empty():
        what, near = column.removesuffix("_id"), sorted(found[column].unique().to_list())[:3]
        fix = f"there is one of {', '.join(near)}" if near else "check the id, or give another --run-date"
        raise UserError(f"no {model} list of this {what} on {night}", where=f"{what} {value}", fix=fix)
    return same


def _spellings(warehouse: Warehouse, column: str, value: str, night: date) -> set[str]:
    """The spellings that the format of a night's log gives an id; none where it is not known."""
    import polars as pl

    if not exists(warehouse, RUNS):
        return set()
    wanted = (pl.col("stage") == "ingest") & (pl.col(RUN_DATE) == pl.lit(night))
    rows = read_rows(open_table(warehouse, RUNS), RUNS, [RUN_DATE, "stage", "ended_at", "config"], wanted)
    if rows.is_empty():
        return set()
    logs = json.loads(rows.sort("ended_at")["config"][-1]).get("logs", {})
    try:
        fmt = load_format(str(logs.get("format")))
    except UserError:  # a file of another machine
        return set()
    fields = (fmt.item,) if column == ITEM_ID else (fmt.user, fmt.session, fmt.basket)
    return {spelt(value, field.normalize) for field in fields if field}


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
    columns = [name for name in METRICS.column_names if name != PROTOCOL]
    found = read_rows(opened, METRICS, columns, pl.lit(True), night)
    if model is not None:
        require_known("model", model, found["model"].unique().to_list())
        found = found.filter(pl.col("model") == pl.lit(model))
    return found.sort(RUN_DATE, "split", "model", "metric", "k", nulls_last=True)


def metrics_short(found: pl.DataFrame) -> pl.DataFrame:
    """Metrics as a screen shows them: a row for each night, hold-out (its parts last), length of the lists and model.

    Returns:
        ``run_date``, ``split``, ``k``, ``model``, ``n`` (the most that one of the row's metrics was judged on), and a
        column of each metric to four digits, without those that no row has. A metric of no length stands in each row of
        its model and hold-out; where that has no other, ``k`` is null.
    """
    import polars as pl

    of = [RUN_DATE, "split", "model"]
    lengths = found.filter(pl.col("k").is_not_null()).select(*of, pl.col("k").alias("length")).unique()
    each = found.join(lengths, on=of, how="left").filter(pl.col("k").is_null() | (pl.col("k") == pl.col("length")))
    keys = [RUN_DATE, "split", "length", "model"]
    wide = each.with_columns(pl.col("n").max().over(keys), pl.col(VALUE).round_sig_figs(4))
    wide = wide.pivot("metric", index=[*keys, "n"], values=VALUE).rename({"length": "k"})
    known = [name for name in METRIC_ORDER if name in wide.columns]
    others = sorted(set(wide.columns) - {*known, *keys, "k", "n"})
    shown = wide.select(RUN_DATE, "split", "k", "model", "n", *known, *others)
    return shown.sort(RUN_DATE, pl.col("split").is_in(PARTS), "split", "k", "model")


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
