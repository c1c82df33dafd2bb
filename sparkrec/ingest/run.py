"""The ingest of one night, step by step: select the files, read them into staging, judge, undo, write."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime

from pyspark.sql import SparkSession

from sparkrec.errors import InvariantError, UserError
from sparkrec.ingest import IngestResult
from sparkrec.ingest.context import Context, FileReader, Kept, Staged, Verdict
from sparkrec.ingest.going import Going
from sparkrec.ingest.hadoop import FileStatus, FileSystem
from sparkrec.ingest.new_events import stage_new_events
from sparkrec.ingest.selection import JOINED_FILE, Chosen, choose_files
from sparkrec.ingest.staging import partners_of, stage_beside, stage_logs
from sparkrec.ingest.table_choice import TableRead, check_partitions, choose_table
from sparkrec.ingest.table_rows import HistoryError, stage_table
from sparkrec.ingest.verdict import check_day, check_share
from sparkrec.ingest.write import forget, note_again, undo, write_files, write_tables
from sparkrec.log import log_event, warn_event
from sparkrec.settings.config import Config
from sparkrec.settings.formats import LogFormat
from sparkrec.settings.sections import LogsConfig
from sparkrec.storage.places import place_of
from sparkrec.warehouse.location import Warehouse


def files_to_read(spark: SparkSession, config: Config, fmt: LogFormat, run_date: date) -> int:
    """See :func:`sparkrec.ingest.log_files_to_read`."""
    context = _context(spark, config, fmt, "", run_date)
    return (choose_table(context)[0] if config.logs.table else choose_files(context)).reads


def _context(
    spark: SparkSession,
    config: Config,
    fmt: LogFormat,
    run_id: str,
    run_date: date,
    warehouse: Warehouse | None = None,
) -> Context:
    now = datetime.now(UTC).replace(tzinfo=None)
    warehouse = warehouse or Warehouse(config.warehouse.path)
    config = replace(config, logs=_as_spark_reads(config.logs))
    return Context(spark, config, fmt, run_id, run_date, now, FileSystem(spark), warehouse)


def _as_spark_reads(logs: LogsConfig) -> LogsConfig:
    """The section with paths in Hadoop's spelling (``s3://`` as ``s3a://``); those without a scheme stay."""

    def spelt(path: str) -> str:
        place = place_of(path)
        return path if place.uri == place.inside else place.uri

    return replace(
        logs,
        path=logs.path and spelt(logs.path),
        table=spelt(logs.table) if logs.table_is_path else logs.table,
        items_path=logs.items_path and spelt(logs.items_path),
        users_path=logs.users_path and spelt(logs.users_path),
    )


def run(
    spark: SparkSession,
    config: Config,
    fmt: LogFormat,
    run_id: str,
    run_date: date,
    warehouse: Warehouse | None = None,
) -> IngestResult:
    """See :func:`sparkrec.ingest.ingest`."""
    context = _context(spark, config, fmt, run_id, run_date, warehouse)
    if not config.logs.table:
        return _run(context, choose_files(context))
    try:
        return _run(context, *choose_table(context))
    except HistoryError as error:
        warn_event("the table's changes cannot be read", table=config.logs.table, reason=str(error))
        return _run(context, *choose_table(context, whole=True))


def _run(context: Context, chosen: Chosen, read: TableRead | None = None) -> IngestResult:
    if not chosen.reads:
        going = Going(tuple(chosen.stale))
        check_day(context, {}, going)
        outputs = undo(context, going) | forget(context, chosen.gone)
        log_event("ingest", files_new=0, files_unchanged=chosen.logs.unchanged, files_later=chosen.logs.later)
        return IngestResult(outputs=outputs)
    context.fs.make_folder(context.staging)
    try:
        return take_in(context, chosen, read)
    finally:
        context.fs.remove(context.staging)
        context.fs.remove_if_empty(context.staging.rsplit("/", 1)[0])


def take_in(context: Context, chosen: Chosen, read: TableRead | None) -> IngestResult:
    """Reads and judges all new files, or rows of the log's table, then writes the tables.

    The first write says which of the noted files are read again, the last that they have been: between the two their
    rows are not whole, and an attempt that breaks off there reads them once more.
    """
    # Into the staging folder, and judged there: whatever raises down to note_again has changed no table.
    logs, beside, going = chosen.logs, chosen.beside, Going(tuple(chosen.stale))
    staged = {name: stage_beside(context, name, s.to_read) for name, s in beside.items()}
    if read is None:
        others = [rows for name, (rows, _) in staged.items() if name.startswith(JOINED_FILE)]
        batch, verdict = stage_logs(context, logs.to_read, partners_of(context, others) if logs.to_read else ())
    else:
        batch, verdict, going = stage_table(context, chosen, read)
    extra = {name: rows for name, (rows, _) in staged.items() if rows}
    refused: dict[str, int] = {}
    for rows, judged in ((batch, verdict), *staged.values()):
        if rows:
            check_share(rows, judged, context.config.ingest.max_quarantine_share)
            refused |= {rows.sources[number]: counts.invalid for number, counts in judged.files.items()}
    check_day(context, verdict.valid, going, batch)
    read_files = [*logs.to_read, *(f for selection in beside.values() for f in selection.to_read)]
    again = [name for name in (*(file.name for file, _ in read_files), *chosen.gone) if name in chosen.noted]
    again += [file.name for file, _ in logs.to_read] if going.touched else []
    hashes = check_unchanged(context, read_files, chosen, read)
    kept = stage_new_events(context, batch, verdict, going) if batch else None
    result = account(batch, verdict, kept, len(logs.to_read))
    removed = going.touched.n_events + going.touched.n_refused if going.touched else 0
    result = replace(result, files_empty=len(logs.to_read) - len(verdict.files), rows_removed=removed)
    # From here on tables change. The old rows of a file go after it is noted that they are to come again, and before
    # the new ones come; ``files`` is last, so that a file counts when all its rows are there.
    note_again(context, again)
    outputs = undo(context, going)
    outputs |= write_tables(context, batch, extra, verdict, kept)
    shares = _shares(kept, read)
    outputs |= write_files(context, [file for file, _ in read_files], hashes, refused, shares, bool(again))
    outputs |= forget(context, chosen.gone)
    log_event(
        "ingest", files_new=result.files_new, files_empty=result.files_empty,
        files_again=len(logs.again), files_unchanged=logs.unchanged, files_later=logs.later,
        files_ignored=logs.ignored, rows_read=result.rows_read, rows_kept=result.rows_kept,
        rows_quarantined=result.rows_quarantined, rows_duplicate=result.rows_duplicate, reasons=result.reasons,
        rows_added=result.rows_added, rows_impressions=result.rows_impressions, rows_left_out=result.rows_left_out,
        rows_removed=result.rows_removed,
    )  # fmt: skip
    return replace(result, outputs=outputs)


def _shares(kept: Kept | None, read: TableRead | None) -> dict[str, list[str]]:
    """Files that keep events in others' stead; a version of a table is never read again without its others."""
    shares = kept.shares if kept else {}
    if read is None or read.version is None:
        return shares
    return {name: [other for other in others if not read.table.owns(other)] for name, others in shares.items()}


def check_unchanged(
    context: Context, selected: Sequence[FileReader], chosen: Chosen, read: TableRead | None
) -> dict[str, str]:
    """The hashes of what was read, by name.

    Raises:
        UserError: A file or a partition was written to while it was read.
    """
    files = [file for file, _ in selected if file.name not in chosen.hashes]
    for file in files:
        if context.fs.stat(file.uri, file.name) != file:
            raise UserError("log file changed while it was read", where=file.path, fix="run again when it is complete")
    if read is not None:
        check_partitions(context, read.table, chosen.hashes)
    return hash_files(context, files) | chosen.hashes


def hash_files(context: Context, read: Sequence[FileStatus]) -> dict[str, str]:
    """SHA-256 of files by name, several at a time."""
    with ThreadPoolExecutor(8) as pool:
        return dict(zip((f.name for f in read), pool.map(context.fs.sha256, read), strict=True))


def account(batch: Staged | None, verdict: Verdict, kept: Kept | None, n_files: int) -> IngestResult:
    """The rows' account.

    Raises:
        InvariantError: Rows read are not rows kept, quarantined and duplicate together.
    """
    if batch is None or kept is None:
        return IngestResult(n_files)
    quarantined = sum(verdict.reasons.values())
    if batch.read != kept.kept + quarantined + kept.duplicates:
        parts = f"{kept.kept} kept + {quarantined} quarantined + {kept.duplicates} duplicates"
        raise InvariantError(f"ingest: {batch.read} rows read, but {parts}")
    left_out = sum(found.left_out for found in verdict.files.values())
    return IngestResult(
        n_files, 0, batch.read, kept.kept, quarantined, kept.duplicates, kept.added, kept.impressions, left_out,
        verdict.reasons,
    )  # fmt: skip
