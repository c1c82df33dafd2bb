"""The snapshot that a neural model trains on: plain Parquet files of one row group each, and a manifest.

A training table is pinned as ``n_files`` files, whatever the number of ranks (which must divide it), so that the
order of the data, and with it the model, does not depend on how many ranks train. All rows of a group (a session, a
user) are in one file; the files are equal in size to within one group or so. The manifest, written last, says what is
there; the feed holds every epoch against it. Delta folders are never read by Petastorm: they hold superseded files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark import StorageLevel

from sparkrec.errors import InvariantError, UserError
from sparkrec.log import log_event
from sparkrec.storage import files

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MANIFEST = "manifest.json"
FILE_NO = "file_no"  # column of each row: the number of the file it is in
_FORMAT = 1
_LARGEST_ROW_GROUP = 2**31 - 2**20  # bytes; HDFS wants a multiple of its checksums' 512
_GROUP, _N, _NULLS = "_group", "_n", "_nulls"
_NUMBERS = ("tinyint", "smallint", "int", "bigint", "float", "double")


@dataclass(frozen=True)
class SnapshotRows:
    """What to write a snapshot of."""

    rows: DataFrame
    group: str  # column whose equal values stay in one file
    order: tuple[str, ...]


@dataclass(frozen=True)
class SnapshotFile:
    """A file of a snapshot; ``name`` is empty where the file has no rows and so was not written."""

    name: str
    rows: int
    groups: int


@dataclass(frozen=True)
class Manifest:
    """What a snapshot holds."""

    path: str
    files: tuple[SnapshotFile, ...]
    columns: tuple[str, ...]
    group: str
    order: tuple[str, ...]
    n_slots: int
    inputs: dict[str, int]  # table → version, and whatever else decides on the rows
    format: int = _FORMAT

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(f.rows for f in self.files)

    @property
    def groups(self) -> int:
        """Groups of all files."""
        return sum(f.groups for f in self.files)

    def files_of(self, rank: int, size: int) -> list[int]:
        """Numbers of the files that a rank reads: every ``size``-th.

        Raises:
            UserError: The number of ranks does not divide the number of files.
        """
        if len(self.files) % size:
            raise UserError(
                "the number of snapshot files is no multiple of the ranks",
                where=f"{len(self.files)} files, {size} ranks",
                fix=f"for example train.snapshot_files={4 * size}",
            )
        return list(range(rank, len(self.files), size))


def read_manifest(path: str) -> Manifest:
    """The manifest of the snapshot in folder ``path``.

    Raises:
        UserError: There is none (the snapshot is not complete), or it is damaged.
    """
    where = files.join(path, MANIFEST)
    if not files.exists(where):
        raise UserError("no complete snapshot", where=path, fix="run the training stage again")
    loaded = files.read_json(where)
    try:
        entries = tuple(SnapshotFile(**f) for f in loaded.pop("files"))
        manifest = Manifest(path=path, files=entries, **loaded)
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError("snapshot manifest is damaged", where=where, fix="remove the folder and run again") from error
    return dataclasses.replace(manifest, columns=tuple(manifest.columns), order=tuple(manifest.order))


def write_snapshot(
    df: DataFrame,
    path: str,
    *,
    group: str,
    order: Sequence[str],
    n_files: int,
    inputs: dict[str, int],
    n_slots: int | None = None,
    rows_per_file_limit: int = 200_000_000,
) -> Manifest:
    """Writes the rows of ``df`` as a snapshot, through Spark's executors; only counts come to the driver.

    Groups are dealt out by size, back and forth over ``n_slots`` slots, so that slots get nearly equal numbers of
    rows; slot s goes to file s mod n_files. A complete snapshot of the same inputs and layout is used again.

    Args:
        df: Numeric columns without nulls.
        path: The folder; what is in it is replaced.
        group: Column whose equal values stay in one file.
        order: Columns by which the rows of each file are sorted; they should leave no ties.
        n_files: Number of files, a multiple of every number of ranks that is to read them.
        inputs: Versions of the tables and whatever else decides on the rows: equal inputs, equal rows.
        n_slots: Shares that the files stand for (the GRU's lanes); default one a file.
        rows_per_file_limit: More rows than this in a file are refused: a row group must fit in memory.

    Raises:
        UserError: A column is not numeric or holds nulls, or a file would get too many rows.
        InvariantError: The files do not hold what they should.
    """
    slots = n_slots or n_files
    columns = (*df.columns, FILE_NO)
    found = _reusable(path, columns, group, tuple(order), n_files, slots, inputs)
    if found is not None:
        log_event("snapshot_reused", path=path, rows=found.rows)
        return found
    _check_columns(df)
    sizes = _group_sizes(df, group).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        groups_of = _count_groups(sizes, df.columns)
        counts = _count_files(groups_of, n_files, slots, rows_per_file_limit)
        dealt = _deal_groups(sizes, groups_of, n_files, slots)
        numbered = df.join(dealt, df[group] == dealt[_GROUP], how="inner").select(*df.columns, FILE_NO)
        _write_files(numbered, path, order, n_files)
    finally:
        sizes.unpersist()
    entries = _check_files(path, counts)
    manifest = Manifest(path, tuple(entries), columns, group, tuple(order), slots, dict(inputs))
    plain = dataclasses.asdict(manifest)
    plain.pop("path")
    files.write_json(files.join(path, MANIFEST), plain)
    log_event("snapshot_written", path=path, rows=manifest.rows, groups=manifest.groups, files=n_files)
    return manifest


def _reusable(
    path: str, columns: tuple[str, ...], group: str, order: tuple[str, ...], n_files: int, slots: int, inputs: dict
) -> Manifest | None:
    if not files.exists(files.join(path, MANIFEST)):
        return None
    try:
        old = read_manifest(path)
    except UserError:
        return None  # damaged: written anew
    same = (old.columns, old.group, old.order, len(old.files), old.n_slots, old.inputs, old.format) == (
        columns, group, order, n_files, slots, dict(inputs), _FORMAT,
    )  # fmt: skip
    written = [files.join(path, f.name) for f in old.files if f.name]
    return old if same and all(files.exists(name) for name in written) else None


def _check_columns(df: DataFrame) -> None:
    for name, kind in df.dtypes:
        if kind not in _NUMBERS:
            raise UserError("a snapshot holds numbers only", where=f"column {name} is {kind}", fix="index it first")
    if FILE_NO in df.columns:
        raise UserError("column name is taken", where=FILE_NO, fix="rename the column")


def _group_sizes(df: DataFrame, group: str) -> DataFrame:
    """(_group, _n, _nulls): each group, its rows, and for each column how many of these are null."""
    from pyspark.sql import functions as F

    nulls = F.array(*[F.count_if(F.col(name).isNull()) for name in df.columns])
    return df.groupBy(F.col(group).alias(_GROUP)).agg(F.count(F.lit(1)).alias(_N), nulls.alias(_NULLS))


def _count_groups(sizes: DataFrame, columns: Sequence[str]) -> dict[int, int]:
    """Size → groups of it, the largest first: few numbers, for N rows have fewer than √2N sizes of groups."""
    from pyspark.sql import functions as F

    nulls = [F.sum(F.get(_NULLS, F.lit(at))) for at in range(len(columns))]
    rows = sizes.groupBy(_N).agg(F.count(F.lit(1)), *nulls).collect()
    for at, name in enumerate(columns):
        if any(row[2 + at] for row in rows):
            raise UserError("a snapshot cannot hold nulls", where=f"column {name}", fix="fill or drop them first")
    return {row[0]: row[1] for row in sorted(rows, reverse=True)}


def _count_files(groups_of: dict[int, int], n_files: int, slots: int, limit: int) -> list[tuple[int, int]]:
    """(rows, groups) of each file: of the groups in order, which are dealt out as ``_deal_groups`` does."""
    there_and_back = [slot % n_files for slot in (*range(slots), *reversed(range(slots)))]
    before = np.cumsum([np.zeros(n_files, np.int64), *np.eye(n_files, dtype=np.int64)[there_and_back]], axis=0)
    rows = groups = dealt = np.zeros(n_files, dtype=np.int64)
    first = 0
    for size, n in groups_of.items():
        first += n
        rounds, place = divmod(first, 2 * slots)
        taken = rounds * before[-1] + before[place] - dealt
        dealt = dealt + taken
        rows, groups = rows + size * taken, groups + taken
    if rows.max() > limit:
        where = f"{rows.max()} rows, at most {limit}"
        raise UserError("too many rows in a snapshot file", where=where, fix="raise train.snapshot_files")
    return list(zip(rows.tolist(), groups.tolist(), strict=True))


def _deal_groups(sizes: DataFrame, groups_of: dict[int, int], n_files: int, slots: int) -> DataFrame:
    """(_group, file_no): groups in order of their rows, descending, are dealt out back and forth over the slots."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    larger = accumulate(groups_of.values(), initial=0)  # one more than there are sizes
    offsets = sizes.sparkSession.createDataFrame(
        list(zip(groups_of, larger, strict=False)), f"{_N} bigint, _offset bigint"
    )
    within = Window.partitionBy(_N).orderBy(F.xxhash64(_GROUP), _GROUP)
    place = F.col("_offset") + F.row_number().over(within) - 1
    placed = sizes.join(F.broadcast(offsets), _N, how="inner").select(_GROUP, place.alias("_place"))
    turn, position = F.floor(F.col("_place") / slots), F.col("_place") % slots
    slot = F.when(turn % 2 == 0, position).otherwise(slots - 1 - position)
    return placed.select(_GROUP, (slot % n_files).cast("int").alias(FILE_NO))


def _write_files(numbered: DataFrame, path: str, order: Sequence[str], n_files: int) -> None:
    """Writes each file number from the task of the same number."""
    from pyspark.sql import functions as F

    files.remove(files.join(path, MANIFEST))  # from here on the old snapshot is incomplete
    keys = _partition_keys(n_files)
    placed = numbered.withColumn("_key", F.element_at(F.array(*[F.lit(k) for k in keys]), F.col(FILE_NO) + 1))
    sorted_rows = placed.repartition(n_files, "_key").sortWithinPartitions(*order).drop("_key")
    writer = sorted_rows.write.mode("overwrite").option("parquet.block.size", str(_LARGEST_ROW_GROUP))
    writer = writer.option("maxRecordsPerFile", 0).option("compression", "snappy")
    writer.parquet(files.join(path, "data"))


def _partition_keys(n_files: int) -> list[int]:
    """For each partition number 0 … n_files-1 a key that Spark's hash partitioning sends there."""
    found: dict[int, int] = {}
    for key in count():
        found.setdefault(spark_hash(key) % n_files, key)
        if len(found) == n_files:
            break
    return [found[i] for i in range(n_files)]


def spark_hash(key: int, seed: int = 42) -> int:
    """Spark's ``hash`` of an int column: 32-bit MurmurHash3 of one block (Appleby, smhasher, ``MurmurHash3_x86_32``).

    Written out, as Spark's own has two methods of one name of which the bridge to the JVM sees one or the other.

    Args:
        key: Not negative, below 2³¹.
        seed: 42 is that of ``hash`` and of the partitions of a shuffle.

    Returns:
        A signed number of 32 bits.
    """
    mask = 2**32 - 1
    block = key * 0xCC9E2D51 & mask
    block = (block << 15 | block >> 17) * 0x1B873593 & mask
    state = seed ^ block
    state = ((state << 13 | state >> 19) & mask) * 5 + 0xE6546B64 & mask
    state ^= 4  # bytes
    state = (state ^ state >> 16) * 0x85EBCA6B & mask
    state = (state ^ state >> 13) * 0xC2B2AE35 & mask
    state ^= state >> 16
    return state - 2**32 if state >= 2**31 else state


def _check_files(path: str, counts: list[tuple[int, int]]) -> list[SnapshotFile]:
    """Holds the footers of the written files against the counts."""
    names = [n for n in files.list_names(files.join(path, "data")) if n.endswith(".parquet")]
    found: dict[int, str] = {}
    for name in names:
        found[int(name.split("-")[1])] = name  # part-00003-….parquet is task 3's
    entries = []
    for number, (rows, groups) in enumerate(counts):
        name = found.get(number, "")
        seen, row_groups = _footer(files.join(path, "data", name)) if name else (0, 0)
        if seen != rows or (rows and row_groups != 1):
            raise InvariantError(
                f"snapshot file {number}: {seen} rows in {row_groups} row groups, expected {rows} in 1"
            )
        entries.append(SnapshotFile(f"data/{name}" if rows else "", rows, groups))
    return entries


def _footer(path: str) -> tuple[int, int]:
    import pyarrow.parquet as pq

    filesystem, inside = files.resolve(path)
    metadata: Any = pq.read_metadata(inside, filesystem=filesystem)
    return metadata.num_rows, metadata.num_row_groups
