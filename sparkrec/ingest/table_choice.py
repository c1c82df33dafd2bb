"""Which part of a log's table a night takes in: what is new since the version taken in, all of it, some partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sparkrec.errors import UserError
from sparkrec.ingest import log_files
from sparkrec.ingest.again import ALL, repeated, require_there, sharing
from sparkrec.ingest.context import Context
from sparkrec.ingest.hadoop import FileStatus
from sparkrec.ingest.log_table import LogTable, Since, open_table
from sparkrec.ingest.selection import Chosen, Recalled, known_files, recall, select_attribute_files, stale_sources
from sparkrec.ingest.table_parts import parts
from sparkrec.log import log_event
from sparkrec.settings.formats import LogFormat, Reader

COMMIT, PARTITION = Reader("commit"), Reader("partition")
NOTHING = log_files.Selection((), (), (), 0, 0, 0)


@dataclass(frozen=True)
class TableRead:
    """What is read of the table.

    Attributes:
        table: The table.
        version: Of a Delta table: up to which.
        after: After which; None: all of it is read.
        since: What changed between the two.
    """

    table: LogTable
    version: int | None = None
    after: int | None = None
    since: Since | None = None


def choose_table(context: Context, whole: bool = False) -> tuple[Chosen, TableRead]:
    """What a night takes in of ``logs.table``, and how.

    Args:
        context: The attempt.
        whole: All of a Delta table, whatever its history says.

    Raises:
        UserError: No such table; a format that says what no table has; logs of other kinds that would have to be read
            again; nothing by the names to read again.
    """
    require_rows_alone(context.fmt)
    table = open_table(context)
    noted = known_files(context)
    own = {name for name in noted if table.owns(name)}
    recalled = recall(context, noted, lambda: own)
    choose = _commits if table.location else _partitions
    chosen, read = choose(context, table, own, recalled, whole)
    beside = select_attribute_files(context, recalled.known)
    stale = stale_sources(context, recalled.known, chosen.logs, beside)
    rows_go = sorted({*stale, *chosen.stale})
    return replace(chosen, beside=beside, stale=rows_go, noted=recalled.again | noted.keys()), read


def require_rows_alone(fmt: LogFormat) -> None:
    """Refuses what a format says of files and a table does not have; its readers are passed over.

    Raises:
        UserError: The first of it.
    """
    refused = [
        ("join", bool(fmt.join), "a table has no files beside it: join them in a view, and name that"),
        ("order", fmt.by_row, "the rows of a table have no places: name a column"),
        ("decimal", (fmt.decimal, fmt.thousands) != (".", ""), "numbers of tables have types: it is for CSV"),
    ]
    for key, given, why in refused:
        if given:
            raise UserError("the log format does not go with logs.table", where=f"{fmt.name}: {key}", fix=why)


def _commits(
    context: Context, table: LogTable, own: set[str], recalled: Recalled, whole: bool
) -> tuple[Chosen, TableRead]:
    """Of a Delta table: the commits since the last that was taken in, or all of it."""
    versions = table.commits().versions
    now = versions[-1]
    pair = (table.commit(context, now), COMMIT)
    known = own & recalled.known.keys()
    if not own:
        selection = replace(NOTHING, new=(pair,))
        return Chosen(selection, {}, [], frozenset()), TableRead(table, now)
    last = max((version for name in known if (version := table.version_of(name)) is not None), default=None)
    why = "" if not whole else "its history cannot be read"
    why = why or _why_whole(context, table, own, recalled, last, versions)
    since = None
    if not why and last is not None:
        since = table.since(last, now)
        why = _why_not_since(context, table, since)
    if why:
        log_event("the table is read whole", table=table.name, reason=why)
        selection = replace(NOTHING, replaced=(pair,))
        gone = tuple(sorted(own - {pair[0].name}))
        return Chosen(selection, {}, sorted(own), frozenset(), gone), TableRead(table, now)
    if since is None or (not since.added and not since.removes):
        return Chosen(replace(NOTHING, unchanged=len(known)), {}, [], frozenset()), TableRead(table, now, last, since)
    selection = replace(NOTHING, new=(pair,), unchanged=len(known))
    return Chosen(selection, {}, [], frozenset()), TableRead(table, now, last, since)


def _why_whole(
    context: Context, table: LogTable, own: set[str], recalled: Recalled, last: int | None, versions: Sequence[int]
) -> str:
    """Why what was taken in of a Delta table cannot be gone on from; empty where it can.

    ``last`` is the version up to which it was taken in, ``versions`` are those in its history.
    """
    asked = [name for name in context.config.ingest.again if not name.startswith("@")]
    require_there([name for name in asked if name != table.name], own)
    if asked:
        return "it is asked for"
    if last is None or own & recalled.again:
        return "what was taken in of it is not whole"
    if any(recalled.known[name].format_hash != context.format_hash for name in own):
        return "another format judged its rows"
    if not set(range(last, versions[-1] + 1)) <= set(versions):
        return f"version {last} is not in its history"
    name = f"{table.name}@{last}"
    if not log_files.is_unchanged(table.commit(context, last), recalled.known[name], context.fs.sha256):
        return f"its version {last} is another one than was taken in"
    return ""


def _why_not_since(context: Context, table: LogTable, since: Since) -> str:
    """Why the changes alone will not do; empty where they do."""
    if context.fmt.ts.cumulative and (since.added or since.removes):
        return "its times are sums over all rows"
    if since.removes and not table.has_feed():
        return "rows were removed or rewritten, and it has no change data feed (delta.enableChangeDataFeed)"
    return ""


def _partitions(
    context: Context, table: LogTable, own: set[str], recalled: Recalled, _: bool
) -> tuple[Chosen, TableRead]:
    """Of another table: the partitions that are new or have changed; those that are gone take their rows along."""
    there = parts(table, context.now)
    if not there:
        raise UserError("the log table has no rows", where=table.name, fix="check logs.table")
    known = {name: file for name, file in recalled.known.items() if name in own}
    now, asked = context.format_hash, [name for name in context.config.ingest.again if not name.startswith("@")]
    asked = [ALL if name == table.name else name for name in asked]
    again = repeated(known, there.keys(), now, asked)
    listed: list[tuple[FileStatus, Reader | None]] = [(part.file, PARTITION) for part in there.values()]

    def select(again: set[str]) -> log_files.Selection:
        return log_files.select_files(
            listed, known, lambda file: there[file.name].sha256, recalled.until, "replace", again
        )  # fmt: skip

    selection, gone = select(again), own - there.keys()
    otherwise = {name for name in again if known[name].format_hash != now}
    changed = recalled.again | otherwise | gone | {file.name for file, _ in selection.replaced}
    shared = sharing(known, changed, now)
    if context.fmt.ts.cumulative and (selection.to_read or gone):
        shared = set(known)
    if shared:
        selection = select((again | shared) & there.keys())
    hashes = {file.name: there[file.name].sha256 for file, _ in selection.to_read}
    return Chosen(selection, {}, sorted(gone), frozenset(), tuple(sorted(gone)), hashes), TableRead(table)


def check_partitions(context: Context, table: LogTable, hashes: Mapping[str, str]) -> None:
    """Raises UserError where a partition was written to while it was read, by the hashes that they had before."""
    there = parts(table, context.now) if hashes else {}
    for name, sha256 in hashes.items():
        if name not in there or there[name].sha256 != sha256:
            raise UserError("log table changed while it was read", where=name, fix="run again when it is complete")
