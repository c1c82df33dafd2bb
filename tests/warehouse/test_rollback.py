"""Rollbacks on tables that no JVM has touched: what they move, note, and refuse."""

import json
import subprocess
import sys
from datetime import UTC, date, datetime

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from sparkrec.errors import UserError
from sparkrec.warehouse.direct import to_frame
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.lock import locked
from sparkrec.warehouse.pointer import Pointer, published, released, rolled_back
from sparkrec.warehouse.rollback import rollback
from sparkrec.warehouse.tables import CURRENT, RUNS, topk_table

NOW = datetime(2024, 2, 1, tzinfo=UTC)


def day(number):
    return date(2024, 1, number)


@pytest.fixture(params=["of today", "of an earlier version"])
def warehouse(tmp_path, request):
    """Nights 10 to 13 of two models, the last current; ``current`` of an earlier version knows no pins."""
    current = [
        {"model": model, "run_date": day(13), "model_version": "2024-01-13.v", "since": NOW} for model in ("als", "gru")
    ]
    frame = to_frame(current, CURRENT)
    write_deltalake(
        str(tmp_path / "current"), frame if request.param == "of today" else frame.select(frame.columns[:4])
    )
    for model in ("als", "gru"):
        nights = range(10, 14)
        lists = pl.DataFrame(
            {"run_date": [day(n) for n in nights], "model_version": [f"2024-01-{n}.v" for n in nights], "user_id": "u"}
        )
        write_deltalake(str(tmp_path / topk_table(model).name), lists, partition_by=["run_date"])
    runs = DeltaTable.create(str(tmp_path / "runs"), to_frame([], RUNS).to_arrow().schema)
    runs.alter.add_constraint({f"check_{name}": check for name, check in [("rows_in", RUNS.checks["check_rows_in"])]})
    return Warehouse(str(tmp_path))


def current(warehouse):
    rows = pl.read_delta(warehouse.table_path(CURRENT)).iter_rows(named=True)
    return {r["model"]: (r["run_date"].day, r["model_version"], r["pinned"], r["passed_over"]) for r in rows}


def test_a_rollback_moves_all_models_and_remembers_what_it_passed_over(warehouse):
    shown = rollback(warehouse, "2024-01-11")
    assert shown["model"].to_list() == ["als", "gru"]
    expected = (11, "2024-01-11.v", False, [day(12), day(13)])
    assert current(warehouse) == {"als": expected, "gru": expected}


def test_it_is_a_row_of_runs(warehouse):
    rollback(warehouse, "2024-01-12", ["gru"], pin=True)
    rollback(warehouse, None, release=True)
    first, second = pl.read_delta(warehouse.table_path(RUNS)).sort("ended_at").iter_rows(named=True)
    assert (first["run_date"], first["stage"], first["status"]) == (day(12), "rollback", "done")
    assert first["message"] == "gru: 2024-01-13 -> 2024-01-12, pinned"
    assert json.loads(first["outputs"]) == {"current": 1}
    assert second["message"] == "als: stays at 2024-01-13; gru: stays at 2024-01-12, released"
    assert first["run_id"] != second["run_id"]


def test_one_model_is_pinned_and_released_where_it_is(warehouse):
    rollback(warehouse, "2024-01-11", ["als"], pin=True)
    assert {name: (row[0], bool(row[2])) for name, row in current(warehouse).items()} == {
        "als": (11, True), "gru": (13, False)
    }  # fmt: skip
    rollback(warehouse, None, ["als"], release=True)
    assert current(warehouse)["als"] == (11, "2024-01-11.v", False, [day(12), day(13)])


def test_none_while_a_night_runs_and_nothing_changes_where_it_is_refused(warehouse):
    before = DeltaTable(warehouse.table_path(CURRENT)).version()
    with locked(warehouse.path, "the-night", 60), pytest.raises(UserError, match="another night is running"):
        rollback(warehouse, "2024-01-11")
    for arguments, said in [
        ({"to": "2024-01-09"}, "no such night"),
        ({"to": "2024-01-11", "models": ["knn"]}, "unknown model"),
        ({"to": None}, "either a night"),
        ({"to": "2024-01-11", "release": True}, "either a night"),
        ({"to": "soon"}, "not YYYY-MM-DD"),
    ]:
        with pytest.raises(UserError, match=said):
            rollback(warehouse, **arguments)
    assert DeltaTable(warehouse.table_path(CURRENT)).version() == before
    assert pl.read_delta(warehouse.table_path(RUNS)).is_empty()


@pytest.mark.integration
def test_the_command_needs_neither_spark_nor_java(warehouse):
    code = (
        "import sys\nfrom sparkrec.cli import main\n"
        "code = main(sys.argv[1:])\nassert 'pyspark' not in sys.modules\nsys.exit(code)\n"
    )
    where = ["--to", "2024-01-10", "--pin", f"warehouse.path={warehouse.path}"]
    done = subprocess.run([sys.executable, "-c", code, "rollback", *where], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert current(warehouse)["als"][0] == 10


def test_what_publications_make_of_a_pointer():
    tonight = published(None, day(10), "a", NOW)
    assert tonight == Pointer(day(10), "a", NOW)
    later = published(tonight, day(11), "b", NOW)
    assert (later.run_date, later.passed_over) == (day(11), frozenset())
    assert published(later, day(10), "c", NOW) == later  # a backfill
    back = rolled_back(later, day(10), "a", NOW, pin=False, nights=[day(9), day(10), day(11)])
    assert (back.run_date, back.passed_over) == (day(10), {day(11)})
    after = published(back, day(12), "d", NOW)
    assert (after.run_date, after.passed_over) == (day(12), {day(11)})  # still nobody's model to begin with
    assert published(after, day(11), "e", NOW).passed_over == frozenset()  # run again, and as good as any


def test_what_a_pin_makes_of_publications():
    pinned = rolled_back(Pointer(day(11), "b", NOW), day(10), "a", NOW, pin=True, nights=[day(10), day(11)])
    beside = published(pinned, day(12), "c", NOW)
    assert (beside.run_date, beside.pinned, beside.passed_over) == (day(10), True, {day(11), day(12)})
    assert published(pinned, day(10), "again", NOW).model_version == "again"
    free = published(released(beside), day(13), "d", NOW)
    assert (free.run_date, free.pinned, free.passed_over) == (day(13), False, {day(11), day(12)})
    forward = rolled_back(beside, day(12), "c", NOW, pin=False, nights=[day(10), day(11), day(12)])
    assert (forward.run_date, forward.passed_over) == (day(12), frozenset())
