"""Rows of a sample as a format's reader hands them on: joined with further files, a row for each exploded element."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from sparkrec.look.roles import Explode, opened
from sparkrec.settings.formats import LogFormat, Reader

if TYPE_CHECKING:
    import polars as pl

    from sparkrec.look.sample import Kind


def reader_of(kind: Kind, readers: Sequence[Reader]) -> Reader | None:
    """The reader that takes all of the files and cuts them as they are written."""
    for reader in readers:
        if reader.kind != kind.reader or not all(is_for(reader, file.base) for file in kind.files):
            continue
        if kind.dialect is None:
            return reader if not reader.is_text or reader.encoding.lower() == kind.encoding else None
        same = reader.separator == kind.dialect.separator and reader.encoding.lower() == kind.encoding
        wide = reader.header or len(reader.columns) == len(kind.dialect.names)
        return reader if same and wide and reader.header == kind.dialect.header else None
    return None


def is_for(reader: Reader, base: str) -> bool:
    """Whether a file of this name, without a compression's ending, goes to the reader."""
    without = [glob[1:] for glob in reader.files if glob.startswith("!")]
    if any(fnmatchcase(base, glob) for glob in without):
        return False
    within = [glob for glob in reader.files if not glob.startswith("!")]
    return any(fnmatchcase(name, glob) for glob in within for name in (base, f"{base}.gz"))


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
    fields = [n.rpartition(".")[2] for n in _names(fmt) if n.startswith(f"{step.column}.")]
    return opened(rows, Explode(step.column, step.kind, step.separator, step.suffix, tuple(fields)))


def _names(fmt: LogFormat) -> list[str]:
    fields = [fmt.user, fmt.item, fmt.ts, fmt.value, fmt.quantity, fmt.price, fmt.text, fmt.session, fmt.basket]
    names = [name for field in fields if field for name in field.columns]
    names += [name for a in fmt.item_attributes + fmt.user_attributes for name in a.columns]
    return list(dict.fromkeys([*names, *fmt.event_type.columns, *(rule.column for rule in fmt.event_type.rules)]))
