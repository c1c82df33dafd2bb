"""A full night on a log: row accounts, wall time of each stage, peak memory, metrics against popularity.

    python bench/night.py --log DIR --format invoices --run-date 2011-12-09 [--conf conf/local.yaml] [key=value …]

Runs ``sparkrec nightly`` in a process of its own on an empty warehouse, reads ``runs`` and ``metrics`` back
without a JVM, prints both as Markdown on standard error, and one line of JSON at the end: ``ours`` and ``peer`` are
the best model's and recent popularity's recall at the largest k on held-out users (sessions where no user model ran).
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from pathlib import Path

import polars as pl
from _measure import last_line, machine, run_measured, say, sparkrec_command


def main() -> int:
    """Runs the night and prints what it measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", required=True)
    parser.add_argument("--format", required=True)
    parser.add_argument("--run-date", required=True)
    parser.add_argument("--conf", default="conf/local.yaml")
    parser.add_argument("--warehouse", help="keep the tables here (must not exist); else a temporary folder")
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        warehouse = arguments.warehouse or f"{folder}/warehouse"
        command = sparkrec_command(
            "nightly", "--conf", arguments.conf, "--run-date", arguments.run_date, f"logs.path={arguments.log}",
            f"logs.format={arguments.format}", f"warehouse.path={warehouse}", *arguments.settings,
        )  # fmt: skip
        say(" ".join(command))
        finished = run_measured(command)
        if finished.code not in (0, 3):
            say(f"the night failed with exit code {finished.code}")
            return finished.code
        if finished.code:
            say("the gate held a model back: see the message of topk")
        report(Path(warehouse), finished.seconds, finished.peak_bytes)
    return 0


def report(warehouse: Path, seconds: float, peak: int) -> None:
    """Prints the accounts of a night."""
    runs = pl.read_delta(str(warehouse / "runs")).sort("started_at")
    say(f"\n{machine()}, {datetime.date.today()}: {seconds:.0f} s in all, peak {peak / 2**30:.1f} GiB\n")
    say("| stage | seconds | read | kept | quarantined | duplicates | message |\n|---|---|---|---|---|---|---|")
    for row in runs.iter_rows(named=True):
        wall = (row["ended_at"] - row["started_at"]).total_seconds()
        counts = " | ".join(
            "" if row[c] is None else f"{row[c]:,}"
            for c in ("rows_in", "rows_out", "rows_quarantined", "rows_duplicate")
        )
        say(f"| {row['stage']} | {wall:.1f} | {counts} | {row['message'] or ''} |")
    metrics = pl.read_delta(str(warehouse / "metrics"))
    table = metrics.with_columns(
        pl.concat_str(["metric", pl.col("k").cast(pl.String)], separator="@", ignore_nulls=True).alias("name")
    ).pivot(on="name", index=["split", "model", "n"], values="value", sort_columns=True)
    say("\n| " + " | ".join(table.columns) + " |\n" + "|---" * len(table.columns) + "|")
    for row in table.sort("split", "model").iter_rows():
        say("| " + " | ".join(f"{v:.4f}" if isinstance(v, float) else "" if v is None else str(v) for v in row) + " |")
    splits = metrics["split"].unique().to_list()
    split = "holdout_users" if "holdout_users" in splits else "holdout_sessions"
    recall = metrics.filter((pl.col("metric") == "recall") & (pl.col("split") == split))
    recall = recall.filter(pl.col("k") == recall["k"].max())
    is_baseline = pl.col("model").str.starts_with("popularity")
    ours = recall.filter(~is_baseline)["value"].max()
    peer = recall.filter(pl.col("model") == "popularity_recent")["value"].max()
    last_line(bench="night", ours=ours, peer=peer, ratio=ours / peer if peer else None, unit="recall", runs=1)


if __name__ == "__main__":
    sys.exit(main())
