"""Writes rows that the driver holds itself, by delta-rs: a few milliseconds each, where Spark takes some jobs.

That is what a night knows of itself (``runs``, ``files``, ``current``, ``metrics``, …); what is as many as events,
users or items goes through Spark (``warehouse.store``). Delta's log is the same for both, and so are schema, checks
and comments. Source: https://delta-io.github.io/delta-rs, "Writing Delta Tables" and "Merging a table".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from sparkrec.errors import InvariantError
from sparkrec.storage import files
from sparkrec.storage.places import LOCAL, Place, place_of
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.reading import exists, open_table, read_rows
from sparkrec.warehouse.tables import RUN_DATE, Table

if TYPE_CHECKING:
    import polars as pl
    from deltalake import DeltaTable

Rows = Sequence[Mapping[str, Any]]

# Every reader must be able to open the tables, those without a JVM too.
PROPERTIES = {
    "delta.enableDeletionVectors": "false",
    "delta.enableChangeDataFeed": "false",
    "delta.columnMapping.mode": "none",
}
CONSTRAINT = "delta.constraints."  # prefix of the properties that hold the CHECK constraints
CHECKING_WRITER = "3"  # from this version of Delta's protocol on writers must heed checks
_MOUNTS = ("/dbfs/", "/Volumes/")  # of Databricks: they have no hard links, by which a commit is made once only


def make(warehouse: Warehouse, table: Table) -> None:
    """Makes a table that does not exist, with its schema, comments, checks and properties."""
    from deltalake import DeltaTable, Schema

    checks = {f"{CONSTRAINT}{name}": condition for name, condition in table.checks.items()}
    protocol = {"delta.minWriterVersion": CHECKING_WRITER} if checks else {}
    DeltaTable.create(
        warehouse.reader_path(table),
        Schema.from_json(json.dumps(schema_of(table))),
        mode="error",
        partition_by=list(table.partition),
        description=table.comment,
        configuration={**PROPERTIES, **checks, **protocol},
        raise_if_key_not_exists=False,  # the constraints are none that delta-rs knows of beforehand
        storage_options=writing(place_of(warehouse.path)),
    )
    _note_state(warehouse, table)


def append(rows: Rows, warehouse: Warehouse, table: Table) -> int:
    """Appends rows and returns the new version.

    A table of an earlier version of the package gets the columns that have been added since, null in its older rows.
    """
    opened = _open(warehouse, table)
    return _write(rows, warehouse, table, opened, {"mode": "append"})


def replace_night(rows: Rows, warehouse: Warehouse, table: Table, run_date: date) -> int:
    """Replaces one night's rows (``run_date``) in one transaction and returns the new version.

    Raises:
        InvariantError: A row is another night's.
    """
    others = {row[RUN_DATE] for row in rows} - {run_date}
    if others:
        raise InvariantError(f"{table.name}: rows of {sorted(others)} written for {run_date}")
    opened = _open(warehouse, table)
    predicate = f"{RUN_DATE} = '{run_date.isoformat()}'"  # a date, not a user's text
    return _write(rows, warehouse, table, opened, {"mode": "overwrite", "predicate": predicate})


def upsert(rows: Rows, warehouse: Warehouse, table: Table) -> int:
    """Updates the rows whose key is in the table and inserts the others (MERGE); returns the new version.

    A table of an earlier version of the package gets the columns that have been added since, null in its other rows.

    Raises:
        InvariantError: A key occurs twice in ``rows``.
    """
    keys = [tuple(row[name] for name in table.key) for row in rows]
    if len(set(keys)) < len(keys):
        raise InvariantError(f"{table.name}: key {table.key} is not unique in what is written")
    opened = _open(warehouse, table)
    merger = opened.merge(
        to_frame(rows, table),
        " and ".join(f"t.{name} = s.{name}" for name in table.key),
        source_alias="s",
        target_alias="t",
        merge_schema=bool(lacking(opened, table)),
    )
    merger.when_matched_update_all().when_not_matched_insert_all().execute()
    return opened.version()


def delete(warehouse: Warehouse, table: Table, column: str, values: Sequence[str]) -> int:
    """Deletes the rows with one of these texts in a column and returns the new version."""
    import polars as pl

    opened = _open(warehouse, table)
    # Not by DELETE: its condition would be a text with the values in it.
    gone = pl.DataFrame({column: list(dict.fromkeys(values))}, schema={column: pl.String})
    merger = opened.merge(gone, f"t.{column} = s.{column}", source_alias="s", target_alias="t")
    merger.when_matched_delete().execute()
    return opened.version()


def writing(place: Place) -> dict[str, str] | None:
    """How delta-rs is to write at a place; endpoints and credentials come from the environment (``storage.access``)."""
    mounted = place.store == LOCAL and place.inside.startswith(_MOUNTS)
    return {"allow_unsafe_rename": "true"} if mounted else None  # the night's lock keeps others away


def rows_of(
    warehouse: Warehouse, table: Table, columns: Sequence[str] = (), wanted: pl.Expr | None = None
) -> list[dict[str, Any]]:
    """The rows of a table that fit the driver, none where there is no table; times in UTC.

    Args:
        warehouse: Where the tables are.
        table: One of those that are written here.
        columns: Those that are read; all by default.
        wanted: Which rows, by the columns that are read; all by default.
    """
    import polars as pl

    if not exists(warehouse, table):
        return []
    every = pl.lit(True)
    found = read_rows(
        open_table(warehouse, table), table, columns or table.column_names, every if wanted is None else wanted
    )
    return found.to_dicts()


def to_frame(rows: Rows, table: Table) -> pl.DataFrame:
    """Rows as a frame of a table's columns, null where a row does not say them.

    Raises:
        InvariantError: A column that may not be null is.
    """
    import polars as pl

    kinds: dict[str, Any] = {
        "string": pl.String,
        "date": pl.Date,
        "timestamp": pl.Datetime("us", "UTC"),
        "boolean": pl.Boolean,
        "int": pl.Int32,
        "bigint": pl.Int64,
        "float": pl.Float32,
        "double": pl.Float64,
        "array<date>": pl.List(pl.Date),
        "array<string>": pl.List(pl.String),
    }
    schema = {column.name: kinds[column.type] for column in table.columns}
    frame = pl.DataFrame([{name: _utc(row.get(name)) for name in schema} for row in rows], schema=schema)
    nulls = [c.name for c in table.columns if not c.nullable and frame[c.name].null_count()]
    if nulls:
        raise InvariantError(f"{table.name}: null in {', '.join(nulls)}")
    return frame


def _utc(value: Any) -> Any:
    """Times without a zone are UTC throughout the package."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def lacking(opened: DeltaTable, table: Table) -> set[str]:
    """The columns that a table of an earlier version of the package does not have."""
    return set(table.column_names) - {field.name for field in opened.schema().fields}


def schema_of(table: Table) -> dict[str, Any]:
    """The columns in Delta's notation of a schema (the protocol's "Schema Serialization Format")."""
    fields = [
        {"name": c.name, "type": _kind(c.type), "nullable": c.nullable, "metadata": {"comment": c.comment}}
        for c in table.columns
    ]
    return {"type": "struct", "fields": fields}


def _kind(name: str) -> str | dict[str, Any]:
    if name.startswith("array<"):
        inner = _kind(name.removeprefix("array<").removesuffix(">"))
        return {"type": "array", "elementType": inner, "containsNull": True}
    return {"int": "integer", "bigint": "long"}.get(name, name)


def _note_state(warehouse: Warehouse, table: Table) -> None:
    """Notes the state of a new table beside its commit, as Spark does for itself: else it would start jobs to find it.

    Source: Delta's protocol, "Version Checksum File".
    """
    log = f"{warehouse.table_path(table)}/_delta_log/{0:020d}"
    commit: dict[str, Any] = {}
    for line in files.read_bytes(f"{log}.json").splitlines():
        commit |= json.loads(line)
    state = {
        "tableSizeBytes": 0,
        "numFiles": 0,
        "numMetadata": 1,
        "numProtocol": 1,
        "setTransactions": [],
        "domainMetadata": [],
        "metadata": commit["metaData"],
        "protocol": commit["protocol"],
        "allFiles": [],
    }
    files.create(f"{log}.crc", json.dumps(state).encode())


def _open(warehouse: Warehouse, table: Table) -> DeltaTable:
    """The table, made where there is none, after a look at the lock."""
    from deltalake import DeltaTable

    warehouse.fence()
    if not exists(warehouse, table):
        make(warehouse, table)
    return DeltaTable(warehouse.reader_path(table), storage_options=writing(place_of(warehouse.path)))


def _write(rows: Rows, warehouse: Warehouse, table: Table, opened: DeltaTable, how: dict[str, Any]) -> int:
    from deltalake import write_deltalake

    frame = to_frame(rows, table)
    later: dict[str, Any] = {"schema_mode": "merge"} if lacking(opened, table) else {}
    write_deltalake(opened, frame, **how, **later)
    opened.update_incremental()
    return opened.version()
