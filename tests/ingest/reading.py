"""Rows of files as ingest reads them, without tables."""

from datetime import date, datetime
from functools import reduce

from sparkrec.ingest.hadoop import FileSystem
from sparkrec.ingest.parse import Bounds, id_columns, parse_rows, required_columns
from sparkrec.ingest.readers import group_files, read_group
from sparkrec.ingest.unpack import make_readable, with_readers

BOUNDS = Bounds(date(1990, 1, 1), datetime(2026, 1, 1), 1000.0)


def parsed(spark, path, fmt):
    """Rows of the file or folder as dictionaries, in the order of reading."""
    fs, names, required = FileSystem(spark), fmt.columns, required_columns(fmt)
    files = [pair for pair in with_readers(fs, fs.list_files(str(path)), fmt.readers) if pair[1]]
    copies = str(path.parent / "_copies") if path.is_dir() else str(path.parent)
    groups = group_files(fs, make_readable(fs, files, fmt.readers, copies), required, names, fmt.explode)
    raw = [read_group(spark, g, names, required, str(path), id_columns(fmt), fmt.explode, fmt.by_row) for g in groups]
    rows = reduce(lambda a, b: a.unionByName(b), [parse_rows(r, fmt, BOUNDS) for r in raw])
    return [row.asDict() for row in rows.collect()]
