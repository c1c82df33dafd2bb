"""A full night on a log: row accounts, jobs and time of each stage, peak memory, metrics against popularity.

    python bench/night.py --log DIR --format invoices --run-date 2011-12-09 [--conf conf/local.yaml] [key=value …]
    python bench/night.py --peer CHECKOUT --runs 3 --log DIR …

Runs ``sparkrec nightly`` in a process of its own on an empty warehouse, reads ``runs`` and ``metrics`` back
without a JVM, prints both as Markdown on standard error, and one line of JSON at the end: ``ours`` and ``peer`` are
the best model's and recent popularity's recall at the largest k on held-out users (sessions or
baskets where no user model ran).

With ``--peer`` the same night is run by this checkout and by the other in turns, each with its own ``conf/local.yaml``
and, where it has one, its own ``.venv``. Then ``ours`` and ``peer`` are the medians of the seconds that a night takes,
and ``ratio`` is how many times as long the other's takes; beside them the medians of CPU seconds and of jobs.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from _measure import Finished, last_line, machine, run_measured, say, sparkrec_command

HERE = Path(__file__).resolve().parent.parent
Stages = dict[str, tuple[int | None, float]]  # stage: jobs, None where they are not recorded, and seconds


@dataclass(frozen=True)
class Run:
    """A night that ended, and its stages."""

    finished: Finished
    stages: Stages


def main() -> int:
    """Runs the nights and prints what it measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", required=True)
    parser.add_argument("--format", required=True)
    parser.add_argument("--run-date", required=True)
    parser.add_argument("--conf", default="conf/local.yaml")
    parser.add_argument("--warehouse", help="keep the tables here (must not exist); else a temporary folder")
    parser.add_argument("--peer", metavar="CHECKOUT", type=Path, help="run the night by this checkout too, in turns")
    parser.add_argument("--runs", type=int, default=1, help="with --peer: nights of each")
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_intermixed_args()
    if arguments.peer:
        return compare(arguments)
    with tempfile.TemporaryDirectory() as folder:
        warehouse = arguments.warehouse or f"{folder}/warehouse"
        finished = run_measured(sparkrec_command(*night_arguments(arguments, warehouse)))
        if finished.code not in (0, 3):
            say(f"the night failed with exit code {finished.code}")
            return finished.code
        if finished.code:
            say("the gate held a model back: see the message of topk")
        report(Path(warehouse), finished)
    return 0


def night_arguments(arguments: argparse.Namespace, warehouse: str) -> list[str]:
    """What follows ``sparkrec``."""
    words = [
        "nightly", "--conf", arguments.conf, "--run-date", arguments.run_date,
        f"logs.path={Path(arguments.log).resolve()}", f"logs.format={arguments.format}",
        f"warehouse.path={warehouse}", *arguments.settings,
    ]  # fmt: skip
    say("sparkrec", *words)
    return words


def compare(arguments: argparse.Namespace) -> int:
    """Runs the night by both checkouts in turns and prints the medians by stage."""
    sides: dict[str, tuple[Path, list[Run]]] = {"ours": (HERE, []), "peer": (arguments.peer.resolve(), [])}
    for n in range(arguments.runs):
        for name, (checkout, runs) in sorted(sides.items(), reverse=bool(n % 2)):
            with tempfile.TemporaryDirectory() as folder:
                words = night_arguments(arguments, f"{folder}/warehouse")
                finished = run_measured([*_program(checkout), *words], str(checkout), PYTHONPATH=str(checkout))
                if finished.code not in (0, 3):
                    say(f"the night by {checkout} failed with exit code {finished.code}")
                    return finished.code
                run = Run(finished, stages_of(read_runs(Path(folder, "warehouse"))))
                runs.append(run)
                jobs = sum(jobs or 0 for jobs, _ in run.stages.values())
                say(f"{name}: {finished.seconds:.0f} s, {finished.cpu_seconds:.0f} s of CPU, {jobs or 'unknown'} jobs")
    ours, peer = (runs for _, runs in sides.values())
    say(f"\n{machine()}, {datetime.date.today()}, medians of {arguments.runs}\n")
    say("| stage | jobs | the peer's | seconds | the peer's |\n|---|---|---|---|---|")
    for stage in ours[0].stages:
        a, b = ([run.stages[stage] for run in runs if stage in run.stages] for runs in (ours, peer))
        say(f"| {stage} | {_jobs(a)} | {_jobs(b)} | {_median(s for _, s in a)} | {_median(s for _, s in b)} |")
    values = {f"{name}_{what}": statistics.median(getattr(run.finished, what) for run in runs)
              for name, runs in (("ours", ours), ("peer", peer)) for what in ("seconds", "cpu_seconds")}  # fmt: skip
    last_line(
        bench="night", ours=values["ours_seconds"], peer=values["peer_seconds"],
        ratio=values["peer_seconds"] / values["ours_seconds"], unit="seconds", runs=arguments.runs,
        ours_cpu=values["ours_cpu_seconds"], peer_cpu=values["peer_cpu_seconds"],
        cpu_ratio=values["peer_cpu_seconds"] / values["ours_cpu_seconds"],
    )  # fmt: skip
    return 0


def _program(checkout: Path) -> list[str]:
    """The checkout's command line: by its own environment, or by the one that runs this."""
    python = checkout / ".venv" / "bin" / "python"
    return [str(python if python.exists() else sys.executable), "-m", "sparkrec.cli"]


def _jobs(found: list[tuple[int | None, float]]) -> str:
    counted = [jobs for jobs, _ in found if jobs is not None]
    return f"{statistics.median(counted):.0f}" if counted else ""


def _median(values: object) -> str:
    found = list(values)  # type: ignore[call-overload]
    return f"{statistics.median(found):.1f}" if found else ""


def read_runs(warehouse: Path) -> pl.DataFrame:
    """The ledger; ``jobs`` and ``seconds`` are made where an earlier version has written it."""
    runs = pl.read_delta(str(warehouse / "runs")).sort("started_at")
    took = (pl.col("ended_at") - pl.col("started_at")).dt.total_milliseconds() / 1000
    if "seconds" in runs.columns:
        return runs
    return runs.with_columns(took.alias("seconds"), pl.lit(None, pl.Int32).alias("jobs"))


def stages_of(runs: pl.DataFrame) -> Stages:
    """Jobs and seconds of each stage."""
    return {stage: (jobs, seconds) for stage, jobs, seconds in runs.select("stage", "jobs", "seconds").iter_rows()}


def report(warehouse: Path, finished: Finished) -> None:
    """Prints the accounts of a night."""
    runs = read_runs(warehouse)
    all_of_it = f"{finished.seconds:.0f} s in all, {finished.cpu_seconds:.0f} s of CPU, {runs['jobs'].sum()} jobs"
    say(f"\n{machine()}, {datetime.date.today()}: {all_of_it}, peak {finished.peak_bytes / 2**30:.1f} GiB\n")
    heads = ["stage", "jobs", "seconds", "read", "kept", "quarantined", "duplicates", "message"]
    say("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for row in runs.iter_rows(named=True):
        counts = " | ".join(
            "" if row[c] is None else f"{row[c]:,}"
            for c in ("rows_in", "rows_out", "rows_quarantined", "rows_duplicate")
        )
        say(f"| {row['stage']} | {row['jobs']} | {row['seconds']:.1f} | {counts} | {row['message'] or ''} |")
    judged(pl.read_delta(str(warehouse / "metrics")))


def judged(metrics: pl.DataFrame) -> None:
    """Prints the metrics and the last line: the best model against recent popularity."""
    table = metrics.with_columns(
        pl.concat_str(["metric", pl.col("k").cast(pl.String)], separator="@", ignore_nulls=True).alias("name")
    ).pivot(on="name", index=["split", "model", "n"], values="value", sort_columns=True)
    say("\n| " + " | ".join(table.columns) + " |\n" + "|---" * len(table.columns) + "|")
    for row in table.sort("split", "model").iter_rows():
        say("| " + " | ".join(f"{v:.4f}" if isinstance(v, float) else "" if v is None else str(v) for v in row) + " |")
    splits = metrics["split"].unique().to_list()
    kinds = ("users", "sessions_with_taken", "sessions", "baskets_with_taken", "baskets")
    split = next(name for kind in kinds if (name := f"holdout_{kind}") in splits)
    recall = metrics.filter((pl.col("metric") == "recall") & (pl.col("split") == split))
    recall = recall.filter(pl.col("k") == recall["k"].max())
    is_baseline = pl.col("model").str.starts_with("popularity")
    ours = recall.filter(~is_baseline)["value"].max()
    peer = recall.filter(pl.col("model") == "popularity_recent")["value"].max()
    last_line(bench="night", ours=ours, peer=peer, ratio=ours / peer if peer else None, unit="recall", runs=1)


if __name__ == "__main__":
    sys.exit(main())
