"""Nights one after another, as a scheduler runs them: what each read, whether an id or an old list moved, what grew.

    python bench/nights.py --log DIR --format invoices --from 2011-12-07 --to 2011-12-09 [--again] [key=value …]
        [--spoil 2011-12-08 --spoil-with als.reg=1e6]

Each night is a ``sparkrec nightly`` of its own on one warehouse. After it the tables are read back without a JVM and
held against those of the night before: every id keeps its number, the lists of earlier nights are the same rows.
``--again`` runs the last night once more and holds every table's version against what it was. A night that ``--spoil``
names gets further settings which make its model bad: the gate must hold it back. The ledger must have every stage of
every night. The program fails where one of these does not hold. Its peer is the first night after the initial one;
``ours`` is the last.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl
from _measure import Finished, last_line, machine, run_measured, say, sparkrec_command
from deltalake import DeltaTable

from sparkrec.cli import main_guard
from sparkrec.errors import UserError
from sparkrec.pipeline.nightly import HELD_BACK, PUBLISHED

INDEXES = ("user_index", "item_index")


@dataclass(frozen=True)
class Seen:
    """The warehouse after a night."""

    ids: dict[str, pl.DataFrame]  # index table → its rows
    lists: dict[str, pl.DataFrame]  # top-K table → its rows, sorted
    versions: dict[str, int]
    data_files: int  # of the current versions of all tables
    stored_files: int  # all below the warehouse


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the nights in ``--warehouse``, or in a temporary folder."""
    options = parse(argv)

    def run() -> int:
        with tempfile.TemporaryDirectory(prefix="sparkrec-nights-") as folder:
            return bench(options, Path(options.warehouse or f"{folder}/warehouse"))

    return main_guard(run)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", required=True)
    parser.add_argument("--format", required=True)
    parser.add_argument("--from", dest="first", type=date.fromisoformat, required=True)
    parser.add_argument("--to", dest="last", type=date.fromisoformat, required=True)
    parser.add_argument("--again", action="store_true", help="run the last night twice")
    parser.add_argument("--spoil", type=date.fromisoformat, help="the night whose model is made bad")
    parser.add_argument("--spoil-with", action="append", default=[], metavar="key=value")
    parser.add_argument("--conf", default=str(Path(__file__).parent.parent / "conf" / "local.yaml"))
    parser.add_argument(
        "--warehouse", help="keep the tables here, or go on with those that are; else a temporary folder"
    )
    parser.add_argument("settings", nargs="*", metavar="key=value")
    return parser.parse_intermixed_args(argv)


def bench(options: argparse.Namespace, warehouse: Path) -> int:
    """Runs and checks every night; prints a Markdown row for each."""
    say(machine())
    say("| night | new files | rows read | seconds | peak GiB | data files | files stored | lists |")
    say("|---|---|---|---|---|---|---|---|")
    seconds: list[float] = []
    before = look(warehouse) if (warehouse / "runs" / "_delta_log").exists() else None  # it is gone on with
    for offset in range((options.last - options.first).days + 1):
        night = options.first + timedelta(days=offset)
        spoiled = night == options.spoil
        finished = run_night(options, warehouse, night, options.spoil_with if spoiled else ())
        if spoiled != (finished.code == HELD_BACK):
            raise UserError("the gate has not done its work", where=f"{night}, exit code {finished.code}")
        after = look(warehouse)
        check(before, after, night, spoiled)
        check_ledger(warehouse, night)
        say(row(warehouse, night, finished, after))
        seconds.append(finished.seconds)
        before = after
    if options.again and before is not None:
        run_night(options, warehouse, options.last)
        check_unchanged(before, look(warehouse), warehouse)
        say("the last night again: every stage skipped, every table as it was")
    later = seconds[1:] or seconds
    last_line(
        bench="nights",
        ours=round(later[-1], 1),
        peer=round(later[0], 1),
        ratio=round(later[0] / later[-1], 3),
        unit="seconds of the last night; peer: the second night",
        runs=[round(s, 1) for s in seconds],
    )
    return 0


def run_night(options: argparse.Namespace, warehouse: Path, night: date, more: Sequence[str] = ()) -> Finished:
    """One night in a process of its own; the gate may hold it back.

    Raises:
        UserError: It failed.
    """
    where = [f"logs.path={options.log}", f"logs.format={options.format}", f"warehouse.path={warehouse}"]
    command = sparkrec_command("nightly", "--conf", options.conf, "--run-date", night.isoformat(), *where)
    finished = run_measured([*command, *options.settings, *more])
    if finished.code not in (PUBLISHED, HELD_BACK):
        raise UserError("the night failed", where=f"{night}, exit code {finished.code}")
    return finished


def look(warehouse: Path) -> Seen:
    """Reads what is to stay as it is."""
    tables = {path.parent.name: DeltaTable(str(path.parent)) for path in warehouse.glob("*/_delta_log")}
    read = {name: pl.read_delta(str(warehouse / name)) for name in tables if name in INDEXES or "topk" in name}
    return Seen(
        ids={name: read[name].sort("idx") for name in INDEXES},
        lists={name: frame.sort(pl.all()) for name, frame in read.items() if name not in INDEXES},
        versions={name: table.version() for name, table in tables.items()},
        data_files=sum(len(table.file_uris()) for table in tables.values()),
        stored_files=sum(path.is_file() for path in warehouse.rglob("*")),
    )


def check(before: Seen | None, after: Seen, night: date, spoiled: bool) -> None:
    """No id has moved, the lists of earlier nights are the same rows, and the night has lists unless it is spoiled.

    Raises:
        UserError: One of them has changed.
    """
    for name, frame in after.lists.items():
        if frame.filter(pl.col("run_date") == night).is_empty() != spoiled:
            raise UserError("a spoiled night has lists, or another has none", where=f"{name}, {night}")
    if before is None:
        return
    for name, frame in before.ids.items():
        if not after.ids[name].head(frame.height).equals(frame):
            raise UserError("an id has moved", where=f"{name}, {night}")
    for name, frame in before.lists.items():
        if not after.lists[name].filter(pl.col("run_date") < night).equals(frame.filter(pl.col("run_date") < night)):
            raise UserError("the lists of an earlier night have changed", where=f"{name}, {night}")


def check_ledger(warehouse: Path, night: date) -> None:
    """Every stage of the night is on record, ended well.

    Raises:
        UserError: One is not.
    """
    rows = pl.read_delta(str(warehouse / "runs")).filter(pl.col("run_date") == night)
    wanted = {"ingest", "index", "prepare", "evaluate", "topk"}
    missing = wanted - set(rows.filter(pl.col("status") != "failed")["stage"])
    failed = rows.filter(pl.col("status") == "failed")["stage"].to_list()
    if missing or failed:
        raise UserError("the ledger is not whole", where=f"{night}: missing {sorted(missing)}, failed {failed}")


def check_unchanged(before: Seen, after: Seen, warehouse: Path) -> None:
    """A second run of a night has skipped its stages and written nothing but the ledger.

    Raises:
        UserError: It has not.
    """
    moved = [name for name, version in before.versions.items() if name != "runs" and after.versions[name] != version]
    ledger = pl.read_delta(str(warehouse / "runs"))
    last = ledger.filter(pl.col("run_id") == ledger.sort("ended_at")["run_id"][-1])
    ran = last.filter(pl.col("status") != "skipped")["stage"].to_list()
    if moved or ran:
        raise UserError("the second run of a night did something", where=f"tables {moved}, stages {ran}")


def row(warehouse: Path, night: date, finished: Finished, after: Seen) -> str:
    """The night as a Markdown row."""
    ledger = pl.read_delta(str(warehouse / "runs"))
    ingest = (
        ledger.filter((pl.col("run_date") == night) & (pl.col("stage") == "ingest"))
        .sort("ended_at")
        .row(-1, named=True)
    )
    lists = sum(frame.filter(pl.col("run_date") == night).height for frame in after.lists.values())
    files = (ingest["message"] or "").split(" new")[0]
    peak = f"{finished.peak_bytes / 2**30:.1f}"
    return (
        f"| {night} | {files} | {ingest['rows_in'] or 0:,} | {finished.seconds:.0f} | {peak} | {after.data_files:,} "
        f"| {after.stored_files:,} | {lists:,} |"
    )


if __name__ == "__main__":
    sys.exit(main())
