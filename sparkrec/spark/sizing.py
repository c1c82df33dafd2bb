"""Spark's settings for a session of one machine, from what the machine has and how much log there is.

Nothing here asks Spark: a machine and a number of bytes go in, settings come out, and whatever the user sets wins over
them (``sparkrec.spark.session``). The figures behind ``SMALL_MB`` are in bench/RESULTS.md.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from sparkrec.storage import files
from sparkrec.storage.places import LOCAL, place_of

MB = 1 << 20
SMALL_MB = 16  # of log, some 200,000 rows: below it Spark's planning and compiling costs more than its computing
LARGEST_HEAP_MB = 30 * 1024  # from 32 GB on the JVM's pointers take twice the room
PARTITION_MB = 128  # of log behind a partition of a shuffle
# What a byte of a file stands for as plain text. Columns and gzip take about an eighth; too much does no harm.
_EXPANSION = {".gz": 8, ".bz2": 8, ".zst": 8, ".lz4": 4, ".snappy": 4, ".parquet": 8, ".orc": 8}

# Each query is a program of its own: for some thousand rows it is cheaper to interpret its expressions than to have
# them written in Java, compiled, and compiled again by the JVM; and its plan is not worth looking at again after each
# of its shuffles, which makes a job of each.
_SMALL = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.ui.explainMode": "simple",  # what each query is described by to listeners
}
# The JVM keeps both its compilers: the first alone saves a third of the time of ingest and index in a fresh JVM, and
# loses as much in the stages after them.


@dataclass(frozen=True)
class Machine:
    """What this process may use: cores, and memory in MB."""

    cores: int
    memory_mb: int


def settings(machine: Machine, log_mb: float | None) -> dict[str, str]:
    """Settings of a session that has the machine to itself.

    Args:
        machine: Its cores and memory.
        log_mb: Megabytes of log as plain text; None where that is not known, which counts as many.
    """
    small, cores = is_small(log_mb), machine.cores
    shuffled = 2 if small else max(8 * cores, math.ceil((log_mb or 0) / PARTITION_MB))
    return {
        "spark.driver.memory": f"{heap_mb(machine)}m",
        "spark.default.parallelism": str(2 if small else 2 * cores),
        "spark.sql.shuffle.partitions": str(shuffled),  # at most: adaptive execution merges those that are small
        **(_SMALL if small else {}),
    }


def is_small(log_mb: float | None) -> bool:
    """Whether Spark's own work outweighs the log's."""
    return log_mb is not None and log_mb <= SMALL_MB


def heap_mb(machine: Machine) -> int:
    """The JVM's heap: three eighths of the memory, less where Python's workers, one a core, need the room."""
    left = machine.memory_mb - 1024 - 256 * machine.cores
    return max(1024, min(machine.memory_mb * 3 // 8, left, LARGEST_HEAP_MB))


def this_machine(root: Path = Path("/")) -> Machine:
    """Cores and memory of this process, within the limits of its container (control groups 1 and 2)."""
    cores = float(len(os.sched_getaffinity(0)))
    memory = psutil.virtual_memory().total
    for folder in _groups(root):
        cores = min(cores, _quota(folder))
        limits = (_number(folder / name) for name in ("memory.max", "memory.limit_in_bytes"))
        memory = min([memory, *(limit for limit in limits if limit)])
    return Machine(max(1, math.ceil(cores)), memory // MB)


def log_mb(*paths: str | None) -> float | None:
    """Megabytes of files and folders as plain text; None where storage does not say.

    What does not exist is left to those who read it. Files that begin with a dot or an underscore are no data.
    """
    total = 0
    for path in filter(None, paths):
        try:
            place = place_of(path)
            found = list(_files(place.inside) if place.store == LOCAL else _stored(path))
        except Exception:  # each storage raises kinds of its own, and whoever reads there will say it
            return None
        total += sum(size * _EXPANSION.get(Path(name).suffix, 1) for name, size in found)
    return total / MB


def _files(place: str) -> Iterator[tuple[str, int]]:
    if os.path.isfile(place):
        yield place, os.path.getsize(place)
    for folder, folders, names in os.walk(place):
        folders[:] = [name for name in folders if name[0] not in "._"]
        for name in names:
            if name[0] not in "._":
                yield name, os.stat(os.path.join(folder, name)).st_size


def _stored(path: str) -> Iterator[tuple[str, int]]:
    """The same of what is not on this machine."""
    from pyarrow.fs import FileSelector

    system, inside = files.resolve(path)
    entry = system.get_file_info(inside)
    below = (
        [entry] if entry.is_file else system.get_file_info(FileSelector(inside, allow_not_found=True, recursive=True))
    )
    for entry in below:
        hidden = any(part[0] in "._" for part in entry.path[len(inside) :].split("/") if part)
        if entry.is_file and not hidden:
            yield entry.base_name, entry.size


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the control groups that this process is in, with those above them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, kinds, inside = line.split(":", 2)
        top = root / "sys/fs/cgroup"
        for mount in [top / kind for kind in kinds.split(",") if kind in ("cpu", "memory")] if kinds else [top]:
            yield mount
            parts = [part for part in inside.split("/") if part not in ("", "..")]
            yield from (mount.joinpath(*parts[:n]) for n in range(1, len(parts) + 1))


def _quota(folder: Path) -> float:
    """Cores' worth of time that a control group may take."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        spent, every = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        return spent / every if spent and every else math.inf
    return math.inf if quota == "max" else int(quota) / int(period)


def _number(file: Path) -> int | None:
    """A limit above zero; None where there is none."""
    try:
        number = int(file.read_text())
    except (OSError, ValueError):  # "max"
        return None
    return number if number > 0 else None
