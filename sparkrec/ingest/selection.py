"""Which files a night takes in: new and changed ones, those of lost tables, and whose rows go first."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from pyspark.sql import functions as F

from sparkrec.errors import UserError
from sparkrec.ingest import log_files
from sparkrec.ingest.again import ALL, repeated, require_there, sharing
from sparkrec.ingest.context import Context
from sparkrec.ingest.hadoop import FileStatus
from sparkrec.ingest.joined import NO_PARTNER
from sparkrec.ingest.unpack import with_readers
from sparkrec.log import warn_event
from sparkrec.settings.formats import AttributeFile, Reader
from sparkrec.warehouse import direct, store
from sparkrec.warehouse.tables import EVENTS, FILES, ITEMS_TABLE, QUARANTINE, SOURCE, USERS_TABLE, Table

GONE_SHARED = "logs are gone that share events with logs that have changed"
GONE_BEFORE = "logs are gone that the times of new or changed ones are counted from (ts.cumulative)"
ITEMS_FILE, USERS_FILE = "@items", "@users"  # attribute files in the column ``source``
JOINED_FILE = "@joined"  # likewise files that rows of the log are joined with


def known_files(context: Context) -> dict[str, log_files.KnownFile]:
    """The ``files`` table by source; it has a row for each file, so it fits the driver."""
    columns = (SOURCE, "size", "modified_at", "sha256", "format_hash", "rows_refused", "shares_with")
    return {row[SOURCE]: _known(row) for row in direct.rows_of(context.warehouse, FILES, columns)}


def _known(row: dict[str, Any]) -> log_files.KnownFile:
    modified_at = row["modified_at"].replace(tzinfo=None)  # naive UTC, as Hadoop's times are taken here
    refused, shares = row["rows_refused"] or 0, tuple(row["shares_with"] or ())
    return log_files.KnownFile(row["size"], modified_at, row["sha256"], row["format_hash"], refused, shares)


@dataclass(frozen=True)
class Chosen:
    """What a night takes in, and whose rows go first.

    Attributes:
        logs: The log's files, or of a table its commits up to now, or partitions.
        beside: Files beside the log, by kind.
        stale: Sources whose rows go before the new ones come.
        noted: Sources that the table ``files`` has, or should have.
        gone: Those of them that it is to have no more: their rows go, or come again under another name.
        hashes: Of partitions of a table, which have no bytes of their own.
    """

    logs: log_files.Selection
    beside: dict[str, log_files.Selection]
    stale: list[str]
    noted: Set[str]
    gone: tuple[str, ...] = ()
    hashes: dict[str, str] = field(default_factory=dict)

    @property
    def reads(self) -> int:
        """The number of files to read."""
        return sum(len(selection.to_read) for selection in (self.logs, *self.beside.values()))


def choose_files(context: Context) -> Chosen:
    """What a night takes in of ``logs.path``.

    Raises:
        UserError: As the functions below raise it.
    """
    noted = known_files(context)
    recalled = recall(context, noted, lambda: {file.name for file, reader in list_logs(context) if reader})
    joined = select_joined(context, recalled)
    logs = select_logs(context, recalled, joined)
    if logs.to_read or any(selection.to_read for selection in joined.values()):
        joined = all_joined(context, recalled)
    beside = select_attribute_files(context, recalled.known) | joined
    stale = stale_sources(context, recalled.known, logs, beside)
    return Chosen(logs, beside, stale, recalled.again | noted.keys())


@dataclass(frozen=True)
class Recalled:
    """What counts as taken in.

    Attributes:
        known: Files whose rows are in the tables.
        until: The last day whose files are read.
        again: Files that are noted but do not count: they are read once more, whatever night they are of.
    """

    known: dict[str, log_files.KnownFile]
    until: date
    again: frozenset[str] = frozenset()


def recall(context: Context, noted: dict[str, log_files.KnownFile], there: Callable[[], Set[str]]) -> Recalled:
    """What counts as taken in of the files that are noted.

    Where a table that ingest writes is gone, nothing counts: all files that were taken in are read again, those of
    later nights too. Nor do files count that an attempt was about to read again when it broke off, see
    :func:`sparkrec.ingest.write.note_again`.

    Args:
        context: The attempt.
        noted: The table ``files``.
        there: Names of the log's files that can be read.

    Raises:
        UserError: Some of these files are gone as well, so that their events would be lost.
    """
    lost, again = _to_read_again(context, noted)
    known = {name: file for name, file in noted.items() if name not in again}
    needed = {name for name in again if not name.startswith("@")}
    if not needed:
        return Recalled(known, context.run_date, frozenset(again))
    gone = sorted(needed - there())
    if gone:
        what = f"table {', '.join(lost)} is gone" if lost else "an attempt to read logs again broke off"
        fix = f"bring them back to {context.config.logs.path or 'logs.path'}, or the table from a copy"
        where = f"{len(gone)} files, e.g. {gone[0]}"
        raise UserError(f"{what}, and so are logs that it was made from", where=where, fix=fix)
    warn_event("tables_lost" if lost else "attempt_broke_off", tables=lost, files_read_again=len(needed))
    days = [day for name in needed if (day := log_files.file_date(name))]
    return Recalled(known, max([context.run_date, *days]), frozenset(again))


def _to_read_again(context: Context, noted: dict[str, log_files.KnownFile]) -> tuple[list[str], set[str]]:
    """The tables that are gone, and the files that do not count as taken in.

    | what is there                    | which files do not count                        |
    |----------------------------------|-------------------------------------------------|
    | ``files`` and all other tables   | those whose hash an attempt took away           |
    | ``files``, another table is gone | all that it notes                               |
    | ``events`` without ``files``     | those that the events name: ``files`` is gone   |
    | neither                          | none: nothing was ever taken in                 |
    """
    tables = (EVENTS, QUARANTINE, ITEMS_TABLE, USERS_TABLE, FILES)
    lost = [table.name for table in tables if not store.exists(context.spark, context.warehouse, table)]
    if noted:
        return lost, {name for name, file in noted.items() if lost or not file.sha256}
    if EVENTS.name in lost:
        return lost, set()
    return sorted({*lost, FILES.name}), _sources(context, EVENTS, SOURCE)


def _sources(context: Context, table: Table, column: str) -> set[str]:
    """The sources of a table's rows; one for each file, so they fit the driver."""
    rows = store.find(context.spark, context.warehouse, table)
    return set() if rows is None else {row[0] for row in rows.select(column).distinct().collect()}


def select_logs(
    context: Context, recalled: Recalled, joined: Mapping[str, log_files.Selection] | None = None
) -> log_files.Selection:
    """The log files of this night: new and changed ones up to a day, and those that are read again.

    Where a file that they are joined with has changed, all are read again; where one is new, those with rows that had
    no partner so far.

    Raises:
        UserError: No such path; no file in it on the first night; a changed file, or one that is gone and shares events
            with one that has changed; none of those asked for.
    """
    listed, known, until = list_logs(context), recalled.known, recalled.until
    on_changed, now = context.config.ingest.on_changed_file, context.format_hash
    there = {file.name for file, reader in listed if reader}
    again = repeated(known, there, now, [name for name in context.config.ingest.again if not name.startswith("@")])
    again |= _to_join_again(context, joined or {}) & there & known.keys()

    def select(again: set[str]) -> log_files.Selection:
        return log_files.select_files(listed, known, context.fs.sha256, until, on_changed, again)

    selection = select(again)
    otherwise = {name for name in again if known[name].format_hash != now}
    shared = sharing(known, recalled.again | otherwise | {file.name for file, _ in selection.replaced}, now)
    if shared:
        _require_there(context, shared - there, GONE_SHARED)
        selection = select(again | shared)
    if selection.to_read and context.fmt.ts.cumulative:  # its times are sums over the rows of all files
        ours = {name for name in known if not name.startswith("@")}
        _require_there(context, ours - there, GONE_BEFORE)
        selection = select(ours)
    has_logs = any(not source.startswith("@") for source in known)
    if not selection.to_read and not has_logs:
        globs = ", ".join(g for r in context.fmt.readers for g in r.files)
        seen = f"{selection.later} dated after {until}, {selection.ignored} with other names"
        fix = f"the format reads {globs}; found {seen}"
        raise UserError("no log file for this night", where=context.config.logs.path, fix=fix)
    return selection


def _require_there(context: Context, gone: set[str], what: str) -> None:
    if gone:
        where = f"{len(gone)} files, e.g. {min(gone)}"
        fix = f"bring them back to {context.config.logs.path}, or restore the changed files"
        raise UserError(what, where=where, fix=fix)


def list_logs(context: Context) -> list[tuple[FileStatus, Reader | None]]:
    """All files of ``logs.path`` with their readers; a Delta table's are its present data files."""
    root, readers = context.config.logs.path, context.fmt.readers
    if not root or not context.fs.exists(root):
        raise UserError("no such log path", where=root or "logs.path", fix="set logs.path=FILE or FOLDER")
    if context.fs.exists(f"{root.rstrip('/')}/_delta_log"):
        return [(file, Reader("delta")) for file in _delta_files(context, root)]
    beside = [reader for join in context.fmt.join for reader in join.readers]
    listed = [file for file in context.fs.list_files(root) if not log_files.reader_for(file.name, beside)]
    if context.fs.is_file(root) and len(readers) == 1:  # named by the user: whatever its name
        return [(listed[0], readers[0])] if listed else []
    return with_readers(context.fs, listed, readers)


def _delta_files(context: Context, root: str) -> list[FileStatus]:
    uris = context.spark.read.format("delta").load(root).inputFiles()
    return [context.fs.stat(uri, uri.rsplit("/", 1)[-1]) for uri in sorted(uris)]


def select_joined(context: Context, recalled: Recalled) -> dict[str, log_files.Selection]:
    """The new and changed files that rows of the log are joined with, for each join of the format.

    They lie among the logs, and are of a night as those are.

    Raises:
        UserError: A changed file, where ``ingest.on_changed_file`` refuses it.
    """
    return {kind: _selected(context, recalled, listed, ()) for kind, listed in _list_joined(context).items()}


def all_joined(context: Context, recalled: Recalled) -> dict[str, log_files.Selection]:
    """The same files, with those that have not changed: whenever logs are read, all of them are.

    Raises:
        UserError: There are none for a join.
    """
    found = {
        kind: _selected(context, recalled, listed, recalled.known) for kind, listed in _list_joined(context).items()
    }
    for (kind, selection), join in zip(found.items(), context.fmt.join, strict=True):
        if not selection.to_read:
            globs = ", ".join(glob for reader in join.readers for glob in reader.files)
            fix = f"logs.path is a folder with all files of the log; {kind.removeprefix('@')} reads {globs}"
            raise UserError(
                f"no file to join by {', '.join(join.key)}", where=context.config.logs.path or "logs.path", fix=fix
            )
    return found


def _list_joined(context: Context) -> dict[str, list[tuple[FileStatus, Reader | None]]]:
    """The files of each join, those that none is for left out; a file goes to the first that fits."""
    root, found = context.config.logs.path, {}
    listed = context.fs.list_files(root) if context.fmt.join and root and context.fs.exists(root) else []
    for n, join in enumerate(context.fmt.join):
        fits = [file for file in listed if log_files.reader_for(file.name, join.readers)]
        named = [replace(file, name=f"{JOINED_FILE}/{file.name}") for file in fits]
        found[f"{JOINED_FILE}{n}"] = with_readers(context.fs, named, join.readers)
        listed = [file for file in listed if file not in fits]
    return found


def _selected(
    context: Context, recalled: Recalled, listed: list[tuple[FileStatus, Reader | None]], again: Container[str]
) -> log_files.Selection:
    on_changed = context.config.ingest.on_changed_file
    return log_files.select_files(listed, recalled.known, context.fs.sha256, recalled.until, on_changed, again)


def _to_join_again(context: Context, joined: Mapping[str, log_files.Selection]) -> set[str]:
    """Names of log files whose rows may have another partner now, files that are not there among them."""
    asked = any(name.startswith(f"{JOINED_FILE}/") for name in context.config.ingest.again)
    if asked or any(selection.replaced for selection in joined.values()):
        return {file.name for file, reader in list_logs(context) if reader}
    quarantine = store.find(context.spark, context.warehouse, QUARANTINE)
    if quarantine is None or not any(selection.new for selection in joined.values()):
        return set()
    alone = quarantine.where(F.startswith("reason", F.lit(NO_PARTNER)))
    return {row[0] for row in alone.select("source_file").distinct().collect()}


def select_attribute_files(context: Context, known: dict[str, log_files.KnownFile]) -> dict[str, log_files.Selection]:
    """New and changed attribute files, by kind; a changed one is read again.

    Raises:
        UserError: No such file, or none of those that are to be read again.
    """
    logs, found = context.config.logs, {}
    named = context.config.ingest.again
    asked = [name for name in named if name.startswith("@") and not name.startswith(f"{JOINED_FILE}/")]
    everything = [ALL] if ALL in context.config.ingest.again else []
    for kind, path, declared in (
        (ITEMS_FILE, logs.items_path, context.fmt.items_file),
        (USERS_FILE, logs.users_path, context.fmt.users_file),
    ):
        if path and declared is None:
            key = kind.replace("@", "logs.") + "_path"
            raise UserError("the log format declares no such file", where=f"{key}={path}", fix="leave it out")
        if path and declared:
            listed = _list_attribute_files(context, kind, path, declared)
            names = {file.name for file, reader in listed if reader}
            again = repeated(known, names, context.format_hash, [*everything, *(n for n in asked if n in names)])
            found[kind] = log_files.select_files(listed, known, context.fs.sha256, date.max, "replace", again)
            asked = [name for name in asked if name not in names]
    require_there(asked, ())  # in no attribute file
    return found


def _list_attribute_files(
    context: Context, kind: str, path: str, declared: AttributeFile
) -> list[tuple[FileStatus, Reader | None]]:
    if not context.fs.exists(path):
        raise UserError("no such attribute file", where=path, fix="check logs.items_path and logs.users_path")
    listed = [replace(file, name=f"{kind}/{file.name}") for file in context.fs.list_files(path)]
    by_name = with_readers(context.fs, listed, declared.readers)
    if len(by_name) == 1 and by_name[0][1] is None:
        return [(by_name[0][0], declared.readers[0])]
    return by_name


def stale_sources(
    context: Context,
    known: dict[str, log_files.KnownFile],
    logs: log_files.Selection,
    beside: dict[str, log_files.Selection],
) -> list[str]:
    """Sources whose rows go before the new ones come: of replaced files, and of an attempt that broke off."""
    found = {file.name for selection in (logs, *beside.values()) for file, _ in selection.replaced + selection.again}
    for table, column in ((EVENTS, SOURCE), (QUARANTINE, "source_file")):
        found |= _sources(context, table, column) - set(known)
    return sorted(found)
