"""Makes the lists of another night current, without Spark or Java."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from sparkrec.errors import UserError
from sparkrec.log import warn_event
from sparkrec.version import code_version
from sparkrec.warehouse.ledger import ROLLBACK, new_run_id
from sparkrec.warehouse.lock import Lock, locked
from sparkrec.warehouse.pointer import Pointer, released, rolled_back
from sparkrec.warehouse.reading import exists, night_in, nights_in, open_table, read_rows, require_known
from sparkrec.warehouse.store import Warehouse
from sparkrec.warehouse.tables import CURRENT, MODEL_VERSION, RUN_DATE, RUNS, Table, lists_table

if TYPE_CHECKING:
    import polars as pl
    from deltalake import DeltaTable


def rollback(
    warehouse: Warehouse,
    to: str | None,
    models: Sequence[str] = (),
    *,
    pin: bool = False,
    release: bool = False,
    expiry_s: float = 300.0,
) -> pl.DataFrame:
    """Makes the lists of an earlier (or later) published night current again. No list is changed or removed.

    It holds the warehouse's lock, and is a row of ``runs``, of the night that it goes to.

    Args:
        warehouse: Where the tables are.
        to: The night, ``YYYY-MM-DD``; None where lists are only released.
        models: The models; by default all that ``current`` names.
        pin: Whether the lists stay current until they are released, whatever is published.
        release: Whether lists that were pinned stay where they are but move on with the next night.
        expiry_s: Of the lock, in seconds.

    Returns:
        The rows of ``current`` after it.

    Raises:
        UserError: A model has no lists of that night, or a night is running; nothing is changed then.
    """
    if (to is None) != release or (pin and release):
        raise UserError("either a night to go to or a release", where="rollback", fix="--to RUN_DATE, or --release")
    old = _pointers(open_table(warehouse, CURRENT))
    for model in models:
        require_known("model", model, sorted(old))
    run_id = new_run_id(max(pointer.run_date for pointer in old.values()) if to is None else _day(to))
    with locked(warehouse.path, run_id, expiry_s) as lock:
        opened, started = open_table(warehouse, CURRENT), datetime.now(UTC)
        old = _pointers(opened)
        chosen = list(models) or sorted(old)
        new = {
            model: released(old[model]) if to is None else _moved(warehouse, model, old[model], to, started, pin)
            for model in chosen
        }
        _write(opened, new, lock)
        _record(
            warehouse, run_id, started, opened.version(), {model: (old[model], new[model]) for model in chosen}, lock
        )
    after = open_table(warehouse, CURRENT)
    return _all(after).sort("model")


def _moved(warehouse: Warehouse, model: str, old: Pointer, to: str, now: datetime, pin: bool) -> Pointer:
    """The pointer to a night that has lists of the model, and the version that made them."""
    import polars as pl

    table = lists_table(model)
    lists = open_table(warehouse, table)
    night = night_in(lists, table, to)
    version = read_rows(lists, table, [MODEL_VERSION], pl.lit(True), night)[MODEL_VERSION][0]
    return rolled_back(old, night, version, now, pin=pin, nights=nights_in(lists))


def _pointers(opened: DeltaTable) -> dict[str, Pointer]:
    """The rows of ``current`` by model; one of an earlier version of the package has fewer columns."""
    return {
        row["model"]: Pointer(
            row[RUN_DATE],
            row[MODEL_VERSION],
            row["since"],
            bool(row.get("pinned")),
            frozenset(row.get("passed_over") or ()),
        )
        for row in _all(opened).iter_rows(named=True)
    }


def _all(opened: DeltaTable) -> pl.DataFrame:
    import polars as pl

    lacking = _lacking(opened, CURRENT)
    return read_rows(opened, CURRENT, [name for name in CURRENT.column_names if name not in lacking], pl.lit(True))


def _lacking(opened: DeltaTable, table: Table) -> set[str]:
    """The columns that a table of an earlier version of the package does not have."""
    return set(table.column_names) - {field.name for field in opened.schema().fields}


def _write(opened: DeltaTable, new: Mapping[str, Pointer], lock: Lock) -> None:
    rows = [
        {
            "model": model,
            RUN_DATE: pointer.run_date,
            MODEL_VERSION: pointer.model_version,
            "since": pointer.since,
            "pinned": pointer.pinned,
            "passed_over": sorted(pointer.passed_over),
        }
        for model, pointer in new.items()
    ]
    lock.check()
    merge = opened.merge(
        _frame(rows, CURRENT),
        "t.model = s.model",
        source_alias="s",
        target_alias="t",
        merge_schema=bool(_lacking(opened, CURRENT)),
    )
    merge.when_matched_update_all().execute()


def _record(
    warehouse: Warehouse,
    run_id: str,
    started: datetime,
    version: int,
    moved: Mapping[str, tuple[Pointer, Pointer]],
    lock: Lock,
) -> None:
    """Appends the row to ``runs``."""
    from deltalake import write_deltalake

    if not exists(warehouse, RUNS):
        warn_event("rollback not recorded: there is no table runs")
        return
    row: dict[str, Any] = {
        "run_id": run_id,
        RUN_DATE: max(new.run_date for _, new in moved.values()),
        "stage": ROLLBACK,
        "status": "done",
        "started_at": started,
        "ended_at": datetime.now(UTC),
        "inputs": "{}",
        "outputs": json.dumps({CURRENT.name: version}),
        "config_hash": "",
        "config": "{}",
        "code_version": code_version(),
        "message": "; ".join(f"{model}: {_said(old, new)}" for model, (old, new) in moved.items()),
    }
    lock.check()
    opened = open_table(warehouse, RUNS)
    write_deltalake(opened, _frame([row], RUNS), mode="append", schema_mode="merge" if _lacking(opened, RUNS) else None)


def _said(old: Pointer, new: Pointer) -> str:
    way = f"stays at {new.run_date}" if old.run_date == new.run_date else f"{old.run_date} -> {new.run_date}"
    return f"{way}, pinned" if new.pinned else f"{way}, released" if old.pinned else way


def _frame(rows: Sequence[Mapping[str, Any]], table: Table) -> pl.DataFrame:
    """Rows as a frame of a table's columns, null where a row does not say them."""
    import polars as pl

    kinds: dict[str, Any] = {
        "string": pl.String,
        "date": pl.Date,
        "timestamp": pl.Datetime("us", "UTC"),
        "boolean": pl.Boolean,
        "int": pl.Int32,
        "bigint": pl.Int64,
        "double": pl.Float64,
        "array<date>": pl.List(pl.Date),
    }
    schema = {column.name: kinds[column.type] for column in table.columns}
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UserError("run date is not YYYY-MM-DD", where=text, fix="for example 2011-12-09") from error
