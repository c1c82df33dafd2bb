"""The partitions of a log's table that is not Delta's, each with a hash by which it is known again.

What is hashed: of an Iceberg table the files of data and of deletes that its snapshot names (its metadata table
``files``: Iceberg's documentation, "Spark queries, inspecting tables"), so that no data are read; of a table whose data
files Spark names these, with sizes and times; of any other, and of a view, the rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec.ingest.hadoop import FileStatus
from sparkrec.ingest.log_table import ICEBERG_PARTITION, LogTable, metadata_columns
from sparkrec.ingest.raw import URI

_METADATA = "_metadata"  # of tables of files (Spark's documentation, "file metadata")
_FILES = ("_path", "_size", "_micros")  # of a data file
_DATA, _EQUALITY = 0, 2  # what a file of an Iceberg table has: rows; values whose rows are deleted
_EPOCH = datetime(1970, 1, 1)


class Part(NamedTuple):
    """A partition as a file: its ``uri`` is what :func:`part_of_row` says of its rows."""

    file: FileStatus
    sha256: str


@dataclass(frozen=True)
class _Found:
    """A partition: its values by column, rows or bytes, when it changed (None: unknown) and the hash."""

    uri: str
    values: Sequence[str | None]
    size: int
    micros: int | None
    sha256: str


def parts(table: LogTable, now: datetime) -> dict[str, Part]:
    """The partitions by name, in one scan.

    Args:
        table: The table.
        now: When those have changed of which Spark does not say it; their size is the number of rows.
    """
    columns = partition_columns(table)
    rows = table.at(None)
    if table.iceberg:
        found = _by_snapshot(table.iceberg_files(), columns)
    elif _METADATA in metadata_columns(rows):
        found = _by_files(rows, columns)
    else:  # a view, a table of another kind of source
        found = _by_rows(rows, columns)
    named = {}
    for part in found:
        folders = [f"{c}={_escaped(value)}" for c, value in zip(columns, part.values, strict=True)]
        name = "/".join([table.name, *folders])
        changed = now if part.micros is None else _EPOCH + timedelta(microseconds=part.micros)
        named[name] = Part(FileStatus(name, name, part.uri, part.size, changed), part.sha256)
    return named


def part_of_row(table: LogTable) -> Column:
    """What tells the partition of a row of the table."""
    return _uri(ICEBERG_PARTITION if table.iceberg else "", partition_columns(table))


def partition_columns(table: LogTable) -> list[str]:
    """The columns that a table is partitioned by, as its catalog says; of Iceberg's what they are made into."""
    if table.iceberg:
        files = table.iceberg_files()
        return files.select("partition.*").columns if "partition" in files.columns else []
    try:
        return [column.name for column in table.spark.catalog.listColumns(table.name) if column.isPartition]
    except Exception:  # a catalog that lists none
        return []


def _by_snapshot(files: DataFrame, columns: Sequence[str]) -> list[_Found]:
    """By the files of an Iceberg table.

    Deletes by value count for all partitions: theirs may be of another layout of the table.
    """
    content = F.col("content")
    seen = [name for name in ("content", "file_path", "record_count", "content_offset") if name in files.columns]
    near, far = (F.collect_list(F.when(kind, F.struct(*seen))) for kind in (content != _EQUALITY, content == _EQUALITY))
    n_rows = F.sum(F.when(content == _DATA, F.col("record_count")).otherwise(0))
    hashes = [F.sha2(F.to_json(F.sort_array(some)), 256) for some in (near, far)]
    groups = files.groupBy(_uri("partition", columns).alias(URI), *_values(columns, "partition"))
    rows = sorted(groups.agg(n_rows, *hashes, F.count_if(content == _EQUALITY)).collect(), key=str)
    everywhere = "".join(str(sha256) for *_, sha256, n in rows if n)
    found = []
    for uri, *values, size, own, _, _ in rows:
        sha256 = hashlib.sha256(f"{own}{everywhere}".encode()).hexdigest()
        found += [_Found(uri, values, int(size), None, sha256)] if size else []
    return found


def _by_files(rows: DataFrame, columns: Sequence[str]) -> list[_Found]:
    """By the data files, which Spark names."""
    metadata = [F.col(f"{_METADATA}.file_path"), F.col(f"{_METADATA}.file_size"),
                F.unix_micros(f"{_METADATA}.file_modification_time")]  # fmt: skip
    named = [column.alias(name) for column, name in zip(metadata, _FILES, strict=True)]
    files = rows.select(_uri("", columns).alias(URI), *_values(columns), *named).distinct()
    hashed = F.sha2(F.to_json(F.sort_array(F.collect_list(F.struct(*_FILES)))), 256)
    return _collected(files, columns, F.sum("_size"), F.max("_micros"), hashed)


def _by_rows(rows: DataFrame, columns: Sequence[str]) -> list[_Found]:
    line = F.xxhash64(F.to_json(F.struct(*[F.col(f"`{c}`") for c in rows.columns])))
    lines = rows.select(_uri("", columns).alias(URI), *_values(columns), line.cast("decimal(38,0)").alias("_line"))
    total = F.sha2(F.concat_ws(" ", F.count("_line"), F.sum("_line")), 256)
    return _collected(lines, columns, F.count("_line"), F.lit(None).cast("bigint"), total)


def _collected(rows: DataFrame, columns: Sequence[str], *of: Column) -> list[_Found]:
    """A partition for each group of rows: size, time and hash of it."""
    found = rows.groupBy(URI, *columns).agg(*of).collect()
    return [_Found(uri, values, int(size), micros, str(sha256)) for uri, *values, size, micros, sha256 in found]


def _values(columns: Sequence[str], of: str = "") -> list[Column]:
    prefix = f"{of}." if of else ""
    return [F.col(f"{prefix}`{name}`").cast("string").alias(name) for name in columns]


def _uri(of: str, columns: Sequence[str]) -> Column:
    """The values of the columns, or of the fields of a struct, as one text."""
    return F.to_json(F.struct(*_values(columns, of)), {"ignoreNullFields": "false"}) if columns else F.lit("{}")


def _escaped(value: str | None) -> str:
    if value is None:
        return "__HIVE_DEFAULT_PARTITION__"
    return value.replace("%", "%25").replace("/", "%2F")
