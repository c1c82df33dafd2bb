"""How a night grows: ten times the events, at most twelve times the time per stage, at most 8 GB in all.

    python bench/scale.py --events 2000000,20000000 [--work DIR] [key=value ...]

Makes one log for each size (500 k users, 100 k items), runs ``sparkrec nightly … models=[als]`` on it in a process of
its own on two cores, and reads the time of each stage from the ``runs`` table. Memory is that of the whole process
tree (driver, JVM, Python workers), sampled; pages that processes share count once. Its peer is the line: the limit is
1.2 times the growth of the events.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

from _measure import last_line, machine, run_measured, say, sparkrec_command

from sparkrec.cli import main_guard
from sparkrec.errors import UserError
from sparkrec.makelog import LogOptions, make_log
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.query import runs

START = date(2024, 1, 1)
GIB = 1024**3
SLACK = 1.2


@dataclass(frozen=True)
class Night:
    """One measured night: wall time in all and per stage, in seconds; peak memory of its processes in GiB."""

    events: int
    wall_s: float
    stages: dict[str, float]
    peak_gib: float


def make(options: argparse.Namespace, events: int, folder: Path) -> list[str]:
    """Makes the log unless the folder has it, and returns the settings that point to it."""
    log = LogOptions(
        options.format, events, users=options.users, items=options.items, days=options.days, start=START, seed=1
    )
    if not folder.exists():
        say(f"making a log of {events:,} events ({options.format}) in {folder}")
        began = time.perf_counter()
        make_log(log, folder)
        say(f"made in {time.perf_counter() - began:.0f} s")
    items = list((folder / "items").glob("*")) if (folder / "items").is_dir() else []
    return [f"logs.format={options.format}", f"logs.path={folder / 'log'}", *[f"logs.items_path={p}" for p in items]]


def measure(options: argparse.Namespace, events: int, work: Path) -> Night:
    """Runs one night in a process of its own.

    Raises:
        UserError: The night failed.
    """
    settings = make(options, events, work / f"log-{options.format}-{events}")
    warehouse = work / f"warehouse-{options.format}-{events}"
    shutil.rmtree(warehouse, ignore_errors=True)
    night = (START + timedelta(days=options.days - 1)).isoformat()
    command = sparkrec_command("nightly", "--conf", options.conf, "--run-date", night, *settings)
    command += [f"warehouse.path={warehouse}", "models=[als]", f"spark.master=local[{options.cores}]"]
    say(" ".join(command + options.settings))
    ended = run_measured(command + options.settings)
    if ended.code:
        raise UserError("the night failed", where=f"{events} events, exit code {ended.code}")
    stages = stage_seconds(Warehouse(str(warehouse)))
    return Night(events, round(ended.seconds, 2), stages, round(ended.peak_bytes / GIB, 2))


def stage_seconds(warehouse: Warehouse) -> dict[str, float]:
    """Seconds of each stage of the only night in the warehouse, in the order in which they ran."""
    ledger = runs(warehouse).filter(status="done")
    return {row["stage"]: (row["ended_at"] - row["started_at"]).total_seconds() for row in ledger.iter_rows(named=True)}


def report(small: Night, large: Night, limit_gib: float) -> bool:
    """Says the times, ratios and memory; returns whether all are within their limits."""
    limit = SLACK * large.events / small.events
    say(f"{'stage':<16}{small.events:>14,}{large.events:>14,}   ratio (at most {limit:.1f})")
    ratios = stage_ratios(small, large)
    for stage, ratio in ratios.items():
        say(f"{stage:<16}{small.stages[stage]:>13.1f}s{large.stages[stage]:>13.1f}s   {ratio:.2f}")
    say(f"{'wall':<16}{small.wall_s:>13.1f}s{large.wall_s:>13.1f}s   {large.wall_s / small.wall_s:.2f}")
    say(f"{'peak memory':<16}{small.peak_gib:>11.2f}GiB{large.peak_gib:>11.2f}GiB   (at most {limit_gib:g} GiB)")
    return max(ratios.values()) <= limit and max(small.peak_gib, large.peak_gib) <= limit_gib


def stage_ratios(small: Night, large: Night) -> dict[str, float]:
    """Time with the large log over time with the small one, for each stage."""
    return {stage: large.stages[stage] / small.stages[stage] for stage in large.stages if small.stages.get(stage)}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", default="2000000,20000000", help="two sizes, the smaller one first")
    parser.add_argument("--format", default="invoices", help="invoices, sessions, ratings or reviews")
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--conf", default=str(Path(__file__).parent.parent / "conf" / "local.yaml"))
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--limit-gib", type=float, default=8.0)
    parser.add_argument("--work", type=Path, help="folder for logs and warehouses; it is kept, and its logs used again")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the night")
    return parser.parse_intermixed_args(argv)


def bench(options: argparse.Namespace, work: Path) -> int:
    """Measures both sizes and prints the result; 1 where a limit is exceeded."""
    try:
        sizes = [int(n) for n in options.events.split(",")]
    except ValueError as error:
        raise UserError("sizes are not numbers", where=options.events, fix="for example 2000000,20000000") from error
    if len(sizes) != 2 or not 0 < sizes[0] < sizes[1]:
        raise UserError("two sizes are needed, the smaller one first", where=options.events)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])  # the nights inherit it
    say(f"{machine()}; {options.cores} cores in use")
    small, large = (measure(options, n, work) for n in sizes)
    within = report(small, large, options.limit_gib)
    ours, limit = max(stage_ratios(small, large).values()), SLACK * large.events / small.events
    last_line(
        bench="scale",
        ours=round(ours, 3),
        peer=limit,
        ratio=round(limit / ours, 3),
        unit=f"times the time for {large.events / small.events:g} times the events, worst stage; peer: the limit",
        runs=[asdict(small), asdict(large)],
    )
    return 0 if within else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the bench in ``--work``, or in a temporary folder."""
    options = parse(argv)

    def run() -> int:
        if options.work:
            options.work.mkdir(parents=True, exist_ok=True)
            return bench(options, options.work)
        with tempfile.TemporaryDirectory(prefix="sparkrec-scale-") as folder:
            return bench(options, Path(folder))

    return main_guard(run)


if __name__ == "__main__":
    sys.exit(main())
