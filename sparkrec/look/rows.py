"""Rows of a sample as a format's reader hands them on: joined with further files, a row for each exploded element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparkrec.look.roles import Explode, opened
from sparkrec.settings.formats import LogFormat, Reader

if TYPE_CHECKING:
    import polars as pl

    from sparkrec.look.sample import Kind


def reader_of(kind: Kind, readers: Sequence[Reader]) -> Reader | None:
    """The reader that takes all of the files and cuts them as they are written."""
    for reader in readers:
        if reader.kind != kind.reader or not all(reader.takes(file.name) for file in kind.files):
            continue
        if kind.dialect is None:
            return reader if not reader.is_text or reader.encoding.lower() == kind.encoding else None
        same = reader.separator == kind.dialect.separator and reader.encoding.lower() == kind.encoding
        wide = reader.header or len(reader.columns) == len(kind.dialect.names)
        return reader if same and wide and reader.header == kind.dialect.header else None
    return None


def renamed(kind: Kind, reader: Reader) -> pl.DataFrame:
    """The rows of files without a header under the names that a reader gives their columns."""
    if kind.dialect is None or reader.header:
        return kind.rows
    return kind.rows.rename(dict(zip(kind.dialect.names, reader.columns, strict=True)))


def as_read(rows: pl.DataFrame, fmt: LogFormat, kinds: Sequence[Kind]) -> pl.DataFrame | None:
    """The rows as the format's reader hands them on; None where files to join are not among the kinds."""
    for join in fmt.join:
        found = [(kind, reader) for kind in kinds if (reader := reader_of(kind, join.readers))]
        if not found or not set(join.key) <= set(rows.columns):
            return None
        other = renamed(*found[0])
        keys = list(join.their_key or join.key)
        if not set(keys) <= set(other.columns):
            return None
        new = [name for name in other.columns if name not in rows.columns and not name.startswith("_")]
        theirs = other.select(*dict.fromkeys([*keys, *new])).unique(keys, keep="first")
        rows = rows.join(theirs, left_on=list(join.key), right_on=keys, how="left", maintain_order="left")
    step = fmt.explode
    if step is None or step.column not in rows.columns:
        return rows
    fields = [n.rpartition(".")[2] for n in fmt.columns if n.startswith(f"{step.column}.")]
    return opened(rows, Explode(step.column, step.kind, step.separator, step.suffix, tuple(fields)))
