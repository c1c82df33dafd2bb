"""Opens and reads the warehouse's tables without Spark or Java: what ``query``, ``rollback`` and ``report`` share.

What users type reaches the tables as literals of polars expressions, never as part of a path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkrec.errors import UserError
from sparkrec.models import MODELS, beside, models_for
from sparkrec.models.model import Lists
from sparkrec.storage.files import first_line
from sparkrec.storage.places import HDFS, LOCAL, place_of
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import (
    CURRENT,
    RUN_DATE,
    TABLES,
    Table,
    similar_items_table,
    similar_users_table,
    topk_table,
)

if TYPE_CHECKING:
    import polars as pl
    from deltalake import DeltaTable

LATEST = "latest"


def user_lists_table(model: str) -> Table:
    """The table of a model's lists for users, sessions or baskets.

    Raises:
        UserError: There is no such model, or its lists are for items.
    """
    require_known("model", model, [name for name in MODELS if name not in models_for(Lists.ITEMS)])
    return topk_table(model)


def similar_table(model: str, users: bool = False) -> Table:
    """The table of a model's similar items, or of its similar users.

    Raises:
        UserError: There is no such model, or it has none.
    """
    require_known("model", model, beside("users" if users else "items"))
    return similar_users_table(model) if users else similar_items_table(model)


def require_known(what: str, value: str, known: Sequence[str]) -> None:
    """Raises a UserError that lists what there is, where ``value`` is none of it."""
    if value not in known:
        raise UserError(f"unknown {what}", where=value, fix=f"one of {', '.join(sorted(known)) or '(none yet)'}")


def require_text(what: str, text: str) -> None:
    """Raises a UserError where the text was bytes of the command line that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{what} is not UTF-8 text", where=ascii(text)) from error


def check_warehouse(warehouse: Warehouse) -> None:
    """Raises a UserError where no warehouse is given, or a local one is not there."""
    if not warehouse.path:
        raise UserError("no warehouse given", fix="add warehouse.path=DIR, or --conf with one in it")
    place = place_of(warehouse.path)
    if place.store == LOCAL and not Path(place.inside).is_dir():
        raise UserError("no such warehouse", where=warehouse.path, fix="check warehouse.path, or run sparkrec nightly")


def exists(warehouse: Warehouse, table: Table) -> bool:
    """Whether there is such a table.

    Raises:
        UserError: The storage cannot be read.
    """
    from deltalake import DeltaTable

    try:
        return DeltaTable.is_deltatable(warehouse.reader_path(table))
    except Exception as error:  # storage back ends raise many kinds
        raise unreadable(warehouse.table_path(table), error) from error


def present_tables(warehouse: Warehouse) -> list[Table]:
    """The declared tables that exist.

    Raises:
        UserError: There is no warehouse, or its storage cannot be read.
    """
    check_warehouse(warehouse)
    return [table for table in TABLES.values() if exists(warehouse, table)]


def open_table(warehouse: Warehouse, table: Table, version: int | None = None) -> DeltaTable:
    """Opens a table at its current version, or at an earlier one.

    Raises:
        UserError: There is no such table or version, or it is damaged.
    """
    from deltalake import DeltaTable

    check_warehouse(warehouse)
    if not exists(warehouse, table):
        raise UserError("no such table yet", where=warehouse.table_path(table), fix="run sparkrec nightly first")
    try:
        return DeltaTable(warehouse.reader_path(table), version=version)
    except Exception as error:
        raise unreadable(warehouse.table_path(table), error) from error


def unreadable(where: str, error: Exception) -> UserError:
    """What a user is told where storage, a table or a file of it cannot be read."""
    return UserError("table cannot be read", where=where, fix=first_line(error))


def read_rows(
    opened: DeltaTable, table: Table, columns: Sequence[str], wanted: pl.Expr, night: date | None = None
) -> pl.DataFrame:
    """The wanted rows of a table or of one of its nights, read piece by piece.

    A column that may be null and that the table does not have yet (it is of an earlier version of the package) is null.

    Raises:
        UserError: A data file is missing or damaged, or a column is not there.
    """
    import polars as pl

    predicate = None if night is None else f"{RUN_DATE} = '{night.isoformat()}'"  # a date, not the user's text
    try:
        there = {field.name for field in opened.schema().fields}
        later = [c.name for c in table.columns if c.nullable and c.name in columns and c.name not in there]
        reader = opened.scan(columns=[name for name in columns if name not in later], predicate=predicate)
        pieces = [to_frame([], reader.schema)]
        pieces += [to_frame([batch], reader.schema).filter(wanted) for batch in reader]
        return pl.concat(pieces).with_columns(pl.lit(None).alias(name) for name in later).select(columns)
    except Exception as error:  # the readers raise many kinds
        raise unreadable(table.name, error) from error


def night_in(opened: DeltaTable, table: Table, run_date: str) -> date:
    """The night that a user names, in a table partitioned by night.

    Raises:
        UserError: There is no such night in it.
    """
    return choose_night(nights_in(opened), table, run_date)


def nights_in(opened: DeltaTable) -> list[date]:
    """The nights that a table partitioned by night has rows of."""
    nights = {part[RUN_DATE] for part in opened.partitions()}
    return sorted(date.fromisoformat(str(night)) for night in nights if night)


def current_nights(warehouse: Warehouse) -> dict[str, date]:
    """For each model the night whose lists are current; empty where ``current`` says nothing."""
    import polars as pl

    if not exists(warehouse, CURRENT):
        return {}
    rows = read_rows(open_table(warehouse, CURRENT), CURRENT, ["model", RUN_DATE], pl.lit(True))
    return dict(rows.iter_rows())


def choose_night(nights: Sequence[date], table: Table, run_date: str) -> date:
    """The night that a user names (``YYYY-MM-DD`` or ``latest``), one of ``nights``.

    Raises:
        UserError: It is none of them.
    """
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


def to_frame(batches: list[Any], schema: Any) -> pl.DataFrame:
    """Arrow batches as a frame; equal column names are told apart by ``_2``, ``_3`` and so on."""
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


def scan_rows(warehouse: Warehouse, table: Table, version: int | None = None) -> pl.LazyFrame:
    """A table, now or at an earlier version, as a lazy frame: what is read of it is decided by the query on it.

    Raises:
        UserError: There is no such table or version, or it is damaged.
    """
    import polars as pl

    opened = open_table(warehouse, table, version)
    place = place_of(warehouse.path)
    if place.store != HDFS and re.fullmatch(r"[!-$&-~]*", place.inside):  # else polars does not find the files
        return pl.scan_delta(opened)
    return _scan_by_delta_rs(opened)


def _scan_by_delta_rs(opened: DeltaTable) -> pl.LazyFrame:
    """The same where polars does not reach the files itself: delta-rs reads the columns that are asked for."""
    from polars.io.plugins import register_io_source

    def batches(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        reader = opened.scan(columns=columns)
        for batch in reader:
            if n_rows is not None and n_rows <= 0:
                return
            frame = to_frame([batch], reader.schema)
            frame = frame if n_rows is None else frame.head(n_rows)
            n_rows = None if n_rows is None else n_rows - frame.height
            yield frame if predicate is None else frame.filter(predicate)

    schema = to_frame([], opened.scan(columns=None).schema).schema
    return register_io_source(batches, schema=schema)


def collected(frame: pl.LazyFrame) -> pl.DataFrame:
    """Runs a query on lazy tables in polars' streaming engine.

    Raises:
        UserError: A data file is missing or damaged.
    """
    import polars as pl

    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:  # a cut file is a panic
        raise UserError("a table cannot be read", fix=first_line(error)) from error
