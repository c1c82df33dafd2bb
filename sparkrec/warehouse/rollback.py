"""Makes the lists of another night current, without Spark or Java."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from sparkrec.errors import UserError
from sparkrec.log import warn_event
from sparkrec.version import code_version
from sparkrec.warehouse import direct
from sparkrec.warehouse.ledger import ROLLBACK, new_run_id
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.lock import Lock, locked
from sparkrec.warehouse.pointer import Pointer, pointers_of, released, rolled_back, row_of
from sparkrec.warehouse.reading import exists, night_in, nights_in, open_table, read_rows, require_known
from sparkrec.warehouse.tables import CURRENT, MODEL_VERSION, RUN_DATE, RUNS, lists_table

if TYPE_CHECKING:
    import polars as pl


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
    old = _pointers(warehouse)
    for model in models:
        require_known("model", model, sorted(old))
    run_id = new_run_id(max(pointer.run_date for pointer in old.values()) if to is None else _day(to))
    with locked(warehouse.path, run_id, expiry_s) as lock:
        started, old = datetime.now(UTC), _pointers(warehouse)
        chosen = list(models) or sorted(old)
        new = {
            model: released(old[model]) if to is None else _moved(warehouse, model, old[model], to, started, pin)
            for model in chosen
        }
        lock.check()
        version = direct.upsert([row_of(model, pointer) for model, pointer in new.items()], warehouse, CURRENT)
        _record(warehouse, run_id, started, version, {model: (old[model], new[model]) for model in chosen}, lock)
    return _current(warehouse).sort("model")


def _pointers(warehouse: Warehouse) -> dict[str, Pointer]:
    return pointers_of(_current(warehouse).iter_rows(named=True))


def _current(warehouse: Warehouse) -> pl.DataFrame:
    import polars as pl

    return read_rows(open_table(warehouse, CURRENT), CURRENT, CURRENT.column_names, pl.lit(True))


def _moved(warehouse: Warehouse, model: str, old: Pointer, to: str, now: datetime, pin: bool) -> Pointer:
    """The pointer to a night that has lists of the model, and the version that made them."""
    import polars as pl

    table = lists_table(model)
    lists = open_table(warehouse, table)
    night = night_in(lists, table, to)
    version = read_rows(lists, table, [MODEL_VERSION], pl.lit(True), night)[MODEL_VERSION][0]
    return rolled_back(old, night, version, now, pin=pin, nights=nights_in(lists))


def _record(
    warehouse: Warehouse,
    run_id: str,
    started: datetime,
    version: int,
    moved: Mapping[str, tuple[Pointer, Pointer]],
    lock: Lock,
) -> None:
    """Appends the row to ``runs``."""
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
    direct.append([row], warehouse, RUNS)


def _said(old: Pointer, new: Pointer) -> str:
    way = f"stays at {new.run_date}" if old.run_date == new.run_date else f"{old.run_date} -> {new.run_date}"
    return f"{way}, pinned" if new.pinned else f"{way}, released" if old.pinned else way


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UserError("run date is not YYYY-MM-DD", where=text, fix="for example 2011-12-09") from error
