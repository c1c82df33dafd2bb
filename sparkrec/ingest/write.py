"""The writes of an ingest: what is read again is said, stale rows go, the batch's come, the files are noted last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.ingest import attributes, parse
from sparkrec.ingest.context import Context, Kept, Staged, Verdict
from sparkrec.ingest.dedupe import FILE_NO
from sparkrec.ingest.going import KEY, Going, event_key, refused_key
from sparkrec.ingest.hadoop import FileStatus
from sparkrec.ingest.parse import REASON
from sparkrec.ingest.raw import RAW
from sparkrec.ingest.selection import ITEMS_FILE, USERS_FILE
from sparkrec.prepare.cut import EPOCH, utc
from sparkrec.prepare.numbering import cut_lineage
from sparkrec.warehouse import direct, store
from sparkrec.warehouse.tables import (
    EVENTS,
    FILES,
    ITEM_ID,
    ITEMS_TABLE,
    QUARANTINE,
    SOURCE,
    USER_ID,
    USERS_TABLE,
    Table,
)


def note_again(context: Context, names: Sequence[str]) -> None:
    """Notes files without their hash, before their rows go: until they are noted with it they do not count."""
    if names:
        blank = {"size": 0, "modified_at": EPOCH, "sha256": "", "rows_refused": 0}
        direct.upsert(_noted(context, dict.fromkeys(names, blank), {}), context.warehouse, FILES)


def undo(context: Context, going: Going) -> dict[str, int]:
    """Deletes from ``events`` and ``quarantine`` what goes: the rows of stale sources, and groups of a table's rows."""
    outputs = {}
    for table, column in ((EVENTS, SOURCE), (QUARANTINE, "source_file")):
        if going.sources and store.exists(context.spark, context.warehouse, table):
            condition = F.col(column).isin(list(going.sources))
            outputs[table.name] = store.delete_where(context.spark, context.warehouse, table, condition)
    touched = going.touched
    if touched and touched.n_events:
        condition = touched.events() & (event_key(touched.fmt) == F.col(KEY))
        outputs[EVENTS.name] = store.delete_matching(touched.keys, context.warehouse, EVENTS, condition)
    if touched and touched.n_refused:
        condition = touched.table.owns_row("source_file") & (refused_key(F.col("raw")) == F.col(KEY))
        outputs[QUARANTINE.name] = store.delete_matching(touched.keys, context.warehouse, QUARANTINE, condition)
    return outputs


def forget(context: Context, gone: Sequence[str]) -> dict[str, int]:
    """Takes sources out of ``files`` whose rows are gone, or are noted under another name by now."""
    if not gone:
        return {}
    return {FILES.name: direct.delete(context.warehouse, FILES, SOURCE, gone)}


def write_tables(
    context: Context, batch: Staged | None, extra: dict[str, Staged], verdict: Verdict, kept: Kept | None
) -> dict[str, int]:
    """Writes ``quarantine``, ``items``, ``users``, ``events``, in this order."""
    store.create(context.spark, context.warehouse, QUARANTINE)
    invalid = [batch] if batch and verdict.reasons else []
    staged = [*invalid, *extra.values()]
    outputs = {}
    if staged:
        outputs[QUARANTINE.name] = store.append(_quarantine(context, staged), context.warehouse, QUARANTINE)
    outputs |= write_attributes(context, batch, extra)
    if batch and kept:
        events = kept.rows.join(F.broadcast(_sources(context, batch)), FILE_NO, how="inner")
        outputs[EVENTS.name] = store.append(events, context.warehouse, EVENTS, kept.kept)
    elif batch is None:  # of files without rows alone the tables are made too: a missing one would count as lost
        for table in (EVENTS, *(full for _, full, *_ in _attribute_tables(context))):
            store.create(context.spark, context.warehouse, table)
    return outputs


def _quarantine(context: Context, staged: Iterable[Staged]) -> DataFrame:
    parts = [
        s.rows.where(F.col(REASON).isNotNull()).select(RAW, REASON, FILE_NO)
        .join(F.broadcast(_sources(context, s)), FILE_NO, how="inner")
        for s in staged
    ]  # fmt: skip
    rows = reduce(DataFrame.unionByName, parts)
    names = (F.col(RAW).alias("raw"), REASON, F.col(SOURCE).alias("source_file"))
    return rows.select(*names, utc(context.now).alias("ingested_at"))


def _sources(context: Context, staged: Staged) -> DataFrame:
    return context.local({FILE_NO: list(range(len(staged.sources))), SOURCE: list(staged.sources)})


def write_attributes(context: Context, batch: Staged | None, extra: dict[str, Staged]) -> dict[str, int]:
    """Updates ``items`` and ``users`` from the log's rows, then from the attribute files."""
    outputs = {}
    for kind, full, id_column, prefix, columns in _attribute_tables(context):
        incoming = []
        if batch:
            valid = batch.rows.where(F.col(REASON).isNull())
            incoming.append((attributes.latest(valid, id_column, prefix, columns), False))
        if kind in extra:
            own = [name for name in columns if name in extra[kind].rows.columns]
            incoming.append((attributes.one_per_id(extra[kind].rows, own), True))
        for rows, wins in incoming:
            existing = store.find(context.spark, context.warehouse, full)
            if existing is None:
                outputs[full.name] = store.append(rows, context.warehouse, full)
                continue
            changed = attributes.changes(existing, rows, list(columns), incoming_wins=wins)
            outputs[full.name] = _write_changes(context, changed, full)
    return outputs


def _attribute_tables(context: Context) -> list[tuple[str, Table, str, str, dict[str, str]]]:
    """For ``items`` and ``users``: kind of file, table, column of ``events``, prefix in parsed rows, attributes."""
    fmt = context.fmt
    found = [
        (ITEMS_FILE, ITEMS_TABLE, ITEM_ID, parse.ITEM_PREFIX, fmt.item_columns()),
        (USERS_FILE, USERS_TABLE, USER_ID, parse.USER_PREFIX, fmt.user_columns()),
    ]
    return [(kind, attributes.attribute_table(table, columns), own, prefix, columns)
            for kind, table, own, prefix, columns in found]  # fmt: skip


def _write_changes(context: Context, changed: DataFrame, table: Table) -> int:
    """Updates a table by its changes: only where ids that it has are among them, files must be rewritten."""
    changed = cut_lineage(changed)
    known = {row[0] for row in changed.select(attributes.KNOWN).distinct().collect()}
    rows = changed.drop(attributes.KNOWN)
    if not known:
        return store.version(context.spark, context.warehouse, table) or 0
    write = store.upsert if True in known else store.append
    return write(rows, context.warehouse, table)


def write_files(
    context: Context,
    read: Sequence[FileStatus],
    hashes: Mapping[str, str],
    refused: Mapping[str, int],
    shares: Mapping[str, list[str]],
    again: bool,
) -> dict[str, int]:
    """Notes the files as taken in: the last write, which makes the others count.

    Args:
        context: The attempt.
        read: The files.
        hashes: SHA-256 of each.
        refused: Their rows in quarantine, of those that have any.
        shares: Files that keep events in their stead.
        again: Whether some of them are noted already.
    """
    said = {
        f.name: {
            "size": f.size,
            "modified_at": f.modified_at,
            "sha256": hashes[f.name],
            "rows_refused": refused.get(f.name, 0),
        }
        for f in read
    }
    write = direct.upsert if again else direct.append
    return {FILES.name: write(_noted(context, said, shares), context.warehouse, FILES)}


def _noted(
    context: Context, said: Mapping[str, Mapping[str, Any]], shares: Mapping[str, list[str]]
) -> list[dict[str, Any]]:
    """Rows of ``files`` of this attempt, from what is said of each file."""
    of_attempt = {"run_id": context.run_id, "ingested_at": context.now, "format_hash": context.format_hash}
    return [{SOURCE: name, **one, **of_attempt, "shares_with": shares.get(name, [])} for name, one in said.items()]
