"""The ingest of one night, step by step: select the files, read them into staging, judge, undo, write."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import LongType

from sparkrec.errors import InvariantError, UserError
from sparkrec.ingest import IngestResult, attributes, log_files, parse
from sparkrec.ingest.context import Context, FileReader, FileRows, Kept, Staged, Verdict
from sparkrec.ingest.dedupe import FILE_NO, IN_TABLE, LAST_NO, N_ROWS, added, group_equal, holders, numbered
from sparkrec.ingest.hadoop import FileStatus, FileSystem, normal_uri
from sparkrec.ingest.joined import Partners, missing_key, parse_joined, partners, their_key, with_partners
from sparkrec.ingest.parse import LEFT_OUT, REASON
from sparkrec.ingest.readers import BLOCK, ROW, URI, group_files, is_read_failure, read_group, unreadable
from sparkrec.ingest.selection import (
    ITEMS_FILE,
    JOINED_FILE,
    all_joined,
    known_files,
    recall,
    select_attribute_files,
    select_joined,
    select_logs,
    stale_sources,
)
from sparkrec.ingest.times import TS_TEXT
from sparkrec.ingest.unpack import make_readable
from sparkrec.ingest.values import Notation
from sparkrec.ingest.write import note_again, undo, write_files, write_tables
from sparkrec.log import log_event
from sparkrec.prepare.cut import as_of, utc
from sparkrec.settings.config import Config
from sparkrec.settings.formats import Explode, Join, LogFormat, Reader
from sparkrec.settings.sections import LogsConfig
from sparkrec.storage.places import place_of
from sparkrec.warehouse import store
from sparkrec.warehouse.tables import EVENT_DATE, EVENT_ID, EVENT_ORDER, EVENT_TYPE, EVENTS, SOURCE, TS

FEW = 5  # invalid rows
CHECK_FORMAT = "check logs.format and the file, or raise ingest.max_quarantine_share"
PART = "_part"  # of the files that were read: a log file, or a member of one
MANY_DAYS = 400  # beyond it a range of days leaves out files well enough, and is no longer to plan


def files_to_read(spark: SparkSession, config: Config, fmt: LogFormat, run_date: date) -> int:
    """See :func:`sparkrec.ingest.log_files_to_read`."""
    context = _context(spark, config, fmt, "", run_date)
    recalled = recall(context, known_files(context))
    joined = select_joined(context, recalled)
    logs = select_logs(context, recalled, joined)
    selections = [logs, *select_attribute_files(context, recalled.known).values(), *joined.values()]
    return sum(len(selection.to_read) for selection in selections)


def _context(
    spark: SparkSession,
    config: Config,
    fmt: LogFormat,
    run_id: str,
    run_date: date,
    warehouse: store.Warehouse | None = None,
) -> Context:
    now = datetime.now(UTC).replace(tzinfo=None)
    warehouse = warehouse or store.Warehouse(config.warehouse.path)
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
        items_path=logs.items_path and spelt(logs.items_path),
        users_path=logs.users_path and spelt(logs.users_path),
    )


def run(
    spark: SparkSession,
    config: Config,
    fmt: LogFormat,
    run_id: str,
    run_date: date,
    warehouse: store.Warehouse | None = None,
) -> IngestResult:
    """See :func:`sparkrec.ingest.ingest`."""
    context = _context(spark, config, fmt, run_id, run_date, warehouse)
    noted = known_files(context)
    recalled = recall(context, noted)
    joined = select_joined(context, recalled)
    logs = select_logs(context, recalled, joined)
    if logs.to_read or any(selection.to_read for selection in joined.values()):
        joined = all_joined(context, recalled)
    beside = select_attribute_files(context, recalled.known) | joined
    stale = stale_sources(context, recalled.known, logs, beside)
    if not logs.to_read and not any(s.to_read for s in beside.values()):
        check_day(context, {}, stale)
        outputs = undo(context, stale)
        log_event("ingest", files_new=0, files_unchanged=logs.unchanged, files_later=logs.later)
        return IngestResult(outputs=outputs)
    context.fs.make_folder(context.staging)
    try:
        return take_in(context, logs, beside, stale, recalled.again | noted.keys())
    finally:
        context.fs.remove(context.staging)
        context.fs.remove_if_empty(context.staging.rsplit("/", 1)[0])


def take_in(
    context: Context,
    logs: log_files.Selection,
    beside: dict[str, log_files.Selection],
    stale: Sequence[str],
    noted: Container[str],
) -> IngestResult:
    """Reads and judges all new files, then writes the tables.

    The first write says which of the noted files are read again, the last that they have been: between the two their
    rows are not whole, and an attempt that breaks off there reads them once more.
    """
    # Into the staging folder, and judged there: whatever raises down to note_again has changed no table.
    staged = {name: stage_beside(context, name, s.to_read) for name, s in beside.items()}
    others = [rows for name, (rows, _) in staged.items() if name.startswith(JOINED_FILE)]
    batch, verdict = stage_logs(context, logs.to_read, _partners(context, others) if logs.to_read else ())
    extra = {name: rows for name, (rows, _) in staged.items() if rows}
    refused: dict[str, int] = {}
    for rows, judged in ((batch, verdict), *staged.values()):
        if rows:
            check_share(rows, judged, context.config.ingest.max_quarantine_share)
            refused |= {rows.sources[number]: counts.invalid for number, counts in judged.files.items()}
    check_day(context, verdict.valid, stale, batch)
    read_files = [*logs.to_read, *(f for selection in beside.values() for f in selection.to_read)]
    again = [file.name for file, _ in read_files if file.name in noted]
    check_unchanged(context, read_files)
    hashes = hash_files(context, [file for file, _ in read_files])
    kept = stage_new_events(context, batch, verdict, stale) if batch else None
    result = account(batch, verdict, kept, len(logs.to_read))
    result = replace(result, files_empty=len(logs.to_read) - len(verdict.files))
    # From here on tables change. The old rows of a file go after it is noted that they are to come again, and before
    # the new ones come; ``files`` is last, so that a file counts when all its rows are there.
    note_again(context, again)
    outputs = undo(context, stale)
    outputs |= write_tables(context, batch, extra, verdict, kept)
    shares = kept.shares if kept else {}
    outputs |= write_files(context, [file for file, _ in read_files], hashes, refused, shares, bool(again))
    log_event(
        "ingest", files_new=result.files_new, files_empty=result.files_empty,
        files_again=len(logs.again), files_unchanged=logs.unchanged, files_later=logs.later,
        files_ignored=logs.ignored, rows_read=result.rows_read, rows_kept=result.rows_kept,
        rows_quarantined=result.rows_quarantined, rows_duplicate=result.rows_duplicate, reasons=result.reasons,
        rows_added=result.rows_added, rows_impressions=result.rows_impressions, rows_left_out=result.rows_left_out,
    )  # fmt: skip
    return replace(result, outputs=outputs)


def stage_logs(
    context: Context, selected: Sequence[FileReader], others: Sequence[Partners] = ()
) -> tuple[Staged | None, Verdict]:
    """Reads and parses the new log files into staging, and counts what came of them; None where nothing is in them.

    Args:
        context: The attempt.
        selected: The files.
        others: What their rows are joined with.
    """
    ingest, fmt = context.config.ingest, context.fmt
    try:
        min_ts = date.fromisoformat(ingest.min_ts)
    except ValueError as error:
        raise UserError("wrong configuration value", where=f"ingest.min_ts={ingest.min_ts}", fix="a date") from error
    bounds = parse.Bounds(min_ts, context.now + timedelta(days=1), ingest.max_quantity)
    theirs = {name for other in others for name in other.columns}
    required = [names for names in parse.required_columns(fmt) if theirs.isdisjoint(names)]
    keys = dict.fromkeys(name for other in others for name in other.join.key)
    required += [(name,) for name in keys if name in others[0].join.key or name not in theirs]

    def parse_group(raw: DataFrame) -> DataFrame:
        return parse.parse_rows(with_partners(raw, others, fmt.nulls), fmt, bounds)

    names, ids = fmt.columns, parse.id_columns(fmt)
    shape = (fmt.ts.cumulative is not None, fmt.explode, fmt.by_row)
    staged = _stage(context, "rows", selected, fmt.readers, names, ids, required, parse_group, *shape)
    if staged is None:
        return None, Verdict({}, {}, {})
    verdict = judge(staged, "missing item")
    _check_files(verdict, selected, fmt.item.columns)
    return _in_place(context, staged) if fmt.by_row else staged, verdict


def _in_place(context: Context, staged: Staged) -> Staged:
    """The rows with ``event_order``: their places in their files, 0, 1, …, whatever parts these were read in."""
    ends = (F.min(ROW).alias("first"), F.max(ROW).alias("last"))
    parts = (FILE_NO, PART, BLOCK)  # a file of several members has a part for each
    blocks = staged.rows.groupBy(*parts).agg(*ends).orderBy(*parts).collect()
    moves: dict[str, list[int]] = {name: [] for name in (*parts, "_move")}
    file_no, place = None, 0
    for block in blocks:
        place = place if block[FILE_NO] == file_no else 0
        file_no = block[FILE_NO]
        for name in parts:
            moves[name].append(block[name])
        moves["_move"].append(place - block["first"])
        place += block["last"] - block["first"] + 1
    placed = staged.rows.join(F.broadcast(context.local(moves)), list(parts), how="inner")
    order = F.when(F.col(REASON).isNull(), F.col(ROW) + F.col("_move")).alias(EVENT_ORDER)
    kept = [c for c in staged.rows.columns if c not in (PART, BLOCK, ROW)]
    return replace(staged, rows=placed.select(*kept, order))


def stage_beside(context: Context, kind: str, selected: Sequence[FileReader]) -> tuple[Staged | None, Verdict]:
    """Reads and parses files beside the log into staging, and counts what came of them; None where there is nothing."""
    if kind.startswith(JOINED_FILE):
        return stage_joined(context, kind, context.fmt.join[int(kind.removeprefix(JOINED_FILE))], selected)
    return stage_attributes(context, kind, selected)


def stage_joined(
    context: Context, kind: str, join: Join, selected: Sequence[FileReader]
) -> tuple[Staged | None, Verdict]:
    """The same of files that rows of the log are joined with."""
    names, nulls = context.fmt.columns, context.fmt.nulls
    keys = their_key(join)

    def parse_group(raw: DataFrame) -> DataFrame:
        return parse_joined(raw, join, names, nulls)

    wanted, required = [*names, *keys], [(name,) for name in keys]
    staged = _stage(context, kind[1:], selected, join.readers, wanted, keys, required, parse_group)
    if staged is None:
        return None, Verdict({}, {}, {})
    verdict = judge(staged, missing_key(join))
    _check_files(verdict, selected, keys)
    return staged, verdict


def _partners(context: Context, staged: Sequence[Staged | None]) -> list[Partners]:
    """What the log's rows are joined with, of the staged rows of each join."""
    found, names = [], context.fmt.columns
    for rows, join in zip(staged, context.fmt.join, strict=True):
        if rows is None:
            where, fix = context.config.logs.path or "logs.path", "its files are empty"
            raise UserError(f"no row to join by {', '.join(join.key)}", where=where, fix=fix)
        other = partners(rows.rows, join, names)
        n_keys = other.rows.count()
        log_event("joined", by=", ".join(join.key), files=len(rows.sources), rows_read=rows.read, rows_used=n_keys)
        found.append(other)
    return found


def stage_attributes(context: Context, kind: str, selected: Sequence[FileReader]) -> tuple[Staged | None, Verdict]:
    """Reads and parses attribute files into staging, and counts what came of them; None where nothing is in them."""
    declared = context.fmt.items_file if kind == ITEMS_FILE else context.fmt.users_file
    if declared is None:
        raise InvariantError(f"no declaration of {kind}")
    names = [*declared.id.columns, *(c for a in declared.attributes for c in a.columns)]

    def parse_group(raw: DataFrame) -> DataFrame:
        fmt = context.fmt
        return attributes.parse_attribute_file(raw, declared, fmt.nulls, fmt.id_nulls, Notation.of(fmt))

    ids = declared.id.columns
    staged = _stage(context, kind[1:], selected, declared.readers, names, ids, [ids], parse_group)
    if staged is None:
        return None, Verdict({}, {}, {})
    verdict = judge(staged, "missing id")
    _check_files(verdict, selected, declared.id.columns)
    log_event("attributes", kind=kind[1:], rows_read=staged.read, reasons=verdict.reasons)
    return staged, verdict


def _stage(
    context: Context,
    folder: str,
    selected: Sequence[FileReader],
    readers: Sequence[Reader],
    names: Sequence[str],
    ids: Sequence[str],
    required: Sequence[tuple[str, ...]],
    parse_group: Callable[[DataFrame], DataFrame],
    together: bool = False,
    explode: Explode | None = None,
    by_row: bool = False,
) -> Staged | None:
    files = make_readable(context.fs, selected, readers, f"{context.staging}/{folder}_unpacked")
    groups = group_files(context.fs, files, required, names, explode)
    if not groups:
        return None
    counters: list[Observation] = []
    raws = []
    for group in groups:
        raw = read_group(context.spark, group, names, required, context.config.logs.path, ids, explode, by_row)
        counters.append(Observation())
        raws.append(raw.observe(counters[-1], F.count(F.lit(1)).alias("rows")))
    if together:
        raws = [reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), raws)]
    rows = reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), map(parse_group, raws))
    number_of = {file.uri: i for i, (file, _) in enumerate(selected)}
    numbers = [(normal_uri((file.copy or file).uri), number_of[file.uri]) for file, _ in files]
    parts = {PART: list(range(len(files)))} if by_row else {}
    numbered = context.local({URI: [u for u, _ in numbers], FILE_NO: [i for _, i in numbers], **parts})
    path = f"{context.staging}/{folder}"
    try:
        rows.join(F.broadcast(numbered), URI, how="inner").drop(URI).write.parquet(path)
    except Exception as error:  # Py4JJavaError or PySparkException
        if is_read_failure(error):
            raise unreadable(error, [file for file, _ in files]) from error
        raise
    read = sum(int(counter.get["rows"]) for counter in counters)
    schema = rows.drop(URI).schema.add(FILE_NO, LongType())
    schema = schema.add(PART, LongType()) if by_row else schema
    return Staged(context.spark.read.schema(schema).parquet(path), tuple(file.name for file, _ in selected), read)


def _check_files(verdict: Verdict, selected: Sequence[FileReader], columns: Sequence[str]) -> None:
    """Every file that has rows has the column that matters in some of them."""
    for number, (file, _) in enumerate(selected):
        found = verdict.files.get(number)
        if found and found.missing == found.rows:
            fix = "check logs.format and the file"
            raise UserError(f"no row of the log file has {' or '.join(columns)}", where=file.path, fix=fix)


def stage_new_events(context: Context, batch: Staged, verdict: Verdict, stale: Sequence[str]) -> Kept:
    """Leaves out rows that are events already, in the batch and against the table's rows of the same days or ids."""
    fmt, by_id = context.fmt, context.fmt.event_id is not None
    valid = batch.rows.where(F.col(REASON).isNull())
    existing = _existing_ids(context, valid, stale) if by_id else _existing(context, list(verdict.valid), stale)
    each = Observation()
    if fmt.equal_rows == "keep":
        valid, existing = numbered(valid, FILE_NO), None if existing is None else numbered(existing, None)
    elif fmt.equal_rows == "add":
        valid = added(valid)
    counter, new = Observation(), F.col(FILE_NO) != IN_TABLE
    n_kept = F.count_if(new).alias("kept")
    n_impressions = F.count_if(new & F.col(EVENT_TYPE).isin(*fmt.impression_events)).alias("impressions")
    grouped = group_equal(valid.observe(each, F.count(F.lit(1)).alias("rows")), existing, bool(fmt.order), by_id)
    grouped = grouped.observe(counter, F.sum(N_ROWS).alias("rows"), n_kept, n_impressions)
    path = f"{context.staging}/events"
    grouped.where(F.col(LAST_NO) != IN_TABLE).drop(N_ROWS).write.parquet(path)  # what the batch has
    counts = counter.get
    kept, rows = int(counts["kept"]), int(counts["rows"] or 0)
    staged = context.spark.read.schema(grouped.drop(N_ROWS).schema).parquet(path)
    shared = staged.where(F.col(FILE_NO) != F.col(LAST_NO))
    shares = {} if rows == kept else _shares(batch, holders(valid, existing, shared, by_id))
    events = staged.where(F.col(FILE_NO) != IN_TABLE).drop(LAST_NO)
    n_added = rows - int(each.get["rows"]) if rows else 0
    return Kept(events, kept, rows - kept, n_added, int(counts["impressions"]), shares)


def _shares(batch: Staged, sets: DataFrame) -> dict[str, list[str]]:
    """For each file of the batch that has events which others keep: those others."""
    found: dict[str, set[str]] = {}
    for (together,) in sets.collect():
        in_table = [source for _, source in together if source is not None]
        here = [batch.sources[number] for number, _ in together if number is not None]  # in order of their numbers
        for name in here if in_table else here[1:]:
            found.setdefault(name, set()).update(in_table or here[:1])
    return {name: sorted(others) for name, others in found.items()}


def _existing(context: Context, days: list[date], stale: Sequence[str]) -> DataFrame | None:
    events = store.find(context.spark, context.warehouse, EVENTS) if days else None
    if events is None:
        return None
    day = F.col(EVENT_DATE)
    in_batch = day.isin(days) if len(days) <= MANY_DAYS else day.between(min(days), max(days))
    return events.where(in_batch & ~_is_one_of(SOURCE, stale))


def _existing_ids(context: Context, valid: DataFrame, stale: Sequence[str]) -> DataFrame | None:
    """The events of the table that have the id of one of the valid rows, and those without an id."""
    events = store.find(context.spark, context.warehouse, EVENTS)
    if events is None:
        return None
    rows = events.where(~_is_one_of(SOURCE, stale))
    ids = valid.select(EVENT_ID).where(F.col(EVENT_ID).isNotNull()).distinct()
    return rows.join(ids, EVENT_ID, "leftsemi").unionByName(rows.where(F.col(EVENT_ID).isNull()))


def _is_one_of(column: str, values: Sequence[str]) -> Column:
    return F.col(column).isin(list(values)) if values else F.lit(False)


def judge(staged: Staged, missing: str) -> Verdict:
    """Counts the staged rows in one pass; ``missing`` is the reason of a row without an id."""
    days = F.col(EVENT_DATE) if EVENT_DATE in staged.rows.columns else F.lit(None).cast("date")
    rows = staged.rows.select(FILE_NO, REASON, days.alias(EVENT_DATE))
    sets = rows.groupingSets([[FILE_NO], [REASON], [EVENT_DATE]], FILE_NO, REASON, EVENT_DATE)
    is_missing = F.count_if(F.col(REASON).eqNullSafe(missing)).alias("missing")
    is_invalid = F.count_if(F.col(REASON).isNotNull()).alias("invalid")
    is_left_out = F.count_if(F.startswith(REASON, F.lit(LEFT_OUT))).alias("left_out")
    absent = [F.grouping(name).alias(f"no_{name}") for name in (FILE_NO, REASON, EVENT_DATE)]
    counts = sets.agg(*absent, F.count(F.lit(1)).alias("n"), is_missing, is_invalid, is_left_out).collect()
    valid = {r[EVENT_DATE]: r["n"] for r in counts if not r[f"no_{EVENT_DATE}"] and r[EVENT_DATE] is not None}
    reasons = [(r[REASON], r["n"]) for r in counts if not r[f"no_{REASON}"] and r[REASON] is not None]
    files = [r for r in counts if not r[f"no_{FILE_NO}"]]
    by_file = {r[FILE_NO]: FileRows(r["n"], r["missing"], r["invalid"], r["left_out"]) for r in files}
    return Verdict(valid, dict(sorted(reasons, key=lambda pair: (-pair[1], pair[0]))), by_file)


def check_share(batch: Staged, verdict: Verdict, most: float) -> None:
    """Raises UserError where more than the share ``most`` of the rows is invalid, of all or of a file's.

    A file with fewer than ``FEW`` invalid rows is judged with the others alone: parts of a few rows are common. Rows
    that the format leaves out do not count.
    """
    reasons = {reason: n for reason, n in verdict.reasons.items() if not reason.startswith(LEFT_OUT)}
    invalid, read = sum(reasons.values()), batch.read - sum(found.left_out for found in verdict.files.values())
    if invalid > most * read:
        reason, n = next(iter(reasons.items()))
        raise UserError(
            f"{invalid} of {read} rows are invalid, mostly: {reason} ({n}){_examples(batch.rows, reason)}",
            where=", ".join(batch.sources[:3]) + (", …" if len(batch.sources) > 3 else ""),
            fix=CHECK_FORMAT,
        )
    for number, found in sorted(verdict.files.items()):
        invalid, read = found.invalid - found.left_out, found.rows - found.left_out
        if invalid >= FEW and invalid > most * read:
            raise UserError(
                f"{invalid} of {read} rows of a file are invalid, mostly: {_main_reason(batch, number)}",
                where=batch.sources[number],
                fix=CHECK_FORMAT,
            )


def _main_reason(batch: Staged, number: int) -> str:
    faulty = F.col(REASON).isNotNull() & ~F.startswith(REASON, F.lit(LEFT_OUT))
    rows = batch.rows.where((F.col(FILE_NO) == number) & faulty)
    (found,) = rows.groupBy(REASON).count().orderBy(F.desc("count"), REASON).take(1)
    return f"{found[REASON]} ({found['count']}){_examples(rows, found[REASON])}"


def _examples(rows: DataFrame, reason: str) -> str:
    """Three of the times that are refused for a reason, as they are written; empty of other reasons."""
    if reason != parse.BAD_TS and not reason.endswith(parse.WRONG_UNIT):
        return ""
    texts = rows.where(F.col(REASON) == reason).select(TS_TEXT).distinct().orderBy(TS_TEXT).take(3)
    return ", e.g. " + ", ".join(json.dumps(row[0][:60], ensure_ascii=False) for row in texts)


def check_day(context: Context, valid: dict[date, int], stale: Sequence[str], batch: Staged | None = None) -> None:
    """Raises UserError where the night's day has no event, neither in the batch nor in the table."""
    zone = context.config.logs.timezone
    if context.config.ingest.allow_empty_day or (zone is None and context.run_date in valid):
        return
    end = as_of(context.run_date, zone)
    begin = as_of(context.run_date - timedelta(days=1), zone)
    days = sorted({begin.date(), (end - timedelta(microseconds=1)).date()})  # in UTC
    within = (F.col(TS) >= utc(begin)) & (F.col(TS) < utc(end))
    if batch and set(days) & valid.keys() and not batch.rows.where(within).isEmpty():
        return
    existing = _existing(context, days, stale)
    if existing is None or existing.where(within).isEmpty():
        span = f"the new files hold {min(valid)} to {max(valid)}; " if valid else ""
        fix = f"{span}choose another --run-date, or set ingest.allow_empty_day=true"
        raise UserError("a day without events", where=context.run_date.isoformat(), fix=fix)


def check_unchanged(context: Context, selected: Iterable[FileReader]) -> None:
    """Raises UserError where a file was written to while it was read."""
    for file, _ in selected:
        if context.fs.stat(file.uri, file.name) != file:
            raise UserError("log file changed while it was read", where=file.path, fix="run again when it is complete")


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
