"""Rows of a log's table into staging: all of it, some partitions, or what changed since a version.

Changes are exact, row by row. Rows that came are new rows, as those of a new file. Where rows went, or were updated,
``events`` does not say how many equal ones the table had, so the table is asked: of each group of equal rows that lost
one (in ``events``, or in quarantine) what is in the table now comes again, and what had come of it goes. Where equal
rows are kept or added up, groups that got one more come again likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from sparkrec.errors import InvariantError, UserError
from sparkrec.ingest import parse
from sparkrec.ingest.context import Context, FileReader, Staged, Verdict
from sparkrec.ingest.dedupe import FILE_NO
from sparkrec.ingest.going import KEY, Going, Touched, event_key, refused_key, row_key
from sparkrec.ingest.hadoop import FileStatus, java_message, normal_uri
from sparkrec.ingest.log_table import CHANGE_TYPE, COMMIT_TIMESTAMP, COMMIT_VERSION, REMOVED
from sparkrec.ingest.parse import REASON
from sparkrec.ingest.raw import URI
from sparkrec.ingest.selection import Chosen
from sparkrec.ingest.staging import bounds_of, into_staging
from sparkrec.ingest.table_choice import COMMIT, TableRead
from sparkrec.ingest.table_parts import part_of_row
from sparkrec.ingest.typed import Typed, typed_rows
from sparkrec.ingest.verdict import check_files, judge
from sparkrec.settings.formats import LogFormat
from sparkrec.warehouse import store
from sparkrec.warehouse.tables import EVENT_DATE, EVENTS, QUARANTINE

N = "_n"
NEAR = timedelta(days=2)  # further apart than two clocks of the world


class HistoryError(Exception):
    """The changes of a table cannot be read, for whatever reason: files of them are vacuumed, columns were renamed."""


def stage_table(context: Context, chosen: Chosen, read: TableRead) -> tuple[Staged | None, Verdict, Going]:
    """Reads and parses the table's rows into staging, and counts what came of them.

    Returns:
        The rows, their counts, and what goes in their stead.

    Raises:
        UserError: The table is empty, lacks a column, or cannot be read.
        HistoryError: Its changes cannot be read.
    """
    going, selected = Going(tuple(chosen.stale)), chosen.logs.to_read
    if not selected:
        return None, Verdict({}, {}, {}), going
    if read.since is not None:
        staged, touched = _stage_changes(context, read, selected)
        return staged, judge(staged, "missing item"), Going(going.sources, touched)
    table = read.table
    if read.version is None:
        uri = part_of_row(table)
        rows = table.at(None).where(uri.isin([file.uri for file, _ in selected]))
    else:
        uri, rows = F.lit(normal_uri(selected[0][0].uri)), table.at(read.version)
    try:
        staged = _stage(context, read, "rows", selected, rows, uri)
    except UserError:
        raise
    except Exception as error:  # of Spark, or of what is behind the catalog
        raise UserError("log table cannot be read", where=table.name, fix=java_message(error)) from error
    if not staged.read and not chosen.logs.unchanged:  # a partition beside others may have files, and no row left
        raise UserError("the log table has no rows", where=table.name, fix="check logs.table")
    verdict = judge(staged, "missing item")
    check_files(verdict, selected, context.fmt.item.columns)
    return staged, verdict, going


def _stage(
    context: Context,
    read: TableRead,
    folder: str,
    selected: Sequence[FileReader],
    rows: DataFrame,
    uri: Column,
    hidden: Sequence[str] = (),
) -> Staged:
    fmt, bounds = context.fmt, bounds_of(context)
    raw = _raw(fmt, read, rows, uri, hidden)
    return into_staging(
        context, folder, [raw], selected, selected, lambda rows: parse.parse_rows(rows, fmt, bounds)
    )  # fmt: skip


def _raw(fmt: LogFormat, read: TableRead, rows: DataFrame, uri: Column, hidden: Sequence[str] = ()) -> DataFrame:
    source = Typed("log table", read.table.name, rows, [uri.alias(URI)], hidden=hidden)
    return typed_rows(source, sorted(fmt.columns), parse.id_columns(fmt), parse.required_columns(fmt), fmt.explode)


def _stage_changes(context: Context, read: TableRead, selected: Sequence[FileReader]) -> tuple[Staged, Touched | None]:
    """The rows that came since a version, and of groups that lost rows those that are left."""
    fmt, source = context.fmt, (selected[0][0].name,)
    changes = _read_changes(context, read)
    one_by_one = fmt.equal_rows != "drop"
    if read.since and not read.since.removes and not one_by_one:
        return Staged(changes.rows, source, changes.read), None
    net = _net(changes.rows).withColumn(KEY, row_key(fmt))
    touched = _touched(context, read, net, one_by_one)
    come = net.where(F.col(N) > 0).withColumn("_copy", F.explode(F.sequence(F.lit(1), F.col(N).cast("int"))))
    columns = [name for name in changes.rows.columns if name != FILE_NO]
    if touched is not None:
        bounds, whole = bounds_of(context), _near(read.table.at(read.version), fmt, touched)
        now = parse.parse_rows(_raw(fmt, read, whole, F.lit("")), fmt, bounds).withColumn(KEY, row_key(fmt))
        left = now.join(touched.keys, KEY, "leftsemi").select(*columns)
        come = come.join(touched.keys, KEY, "left_anti").select(*columns).unionByName(left)
    counter, path = Observation(), f"{context.staging}/rows"
    rows = come.select(*columns, F.lit(0).cast("bigint").alias(FILE_NO))
    rows.observe(counter, F.count(F.lit(1)).alias("rows")).write.parquet(path)
    staged = context.spark.read.schema(rows.schema).parquet(path)
    return Staged(staged, source, int(counter.get["rows"])), touched


def _read_changes(context: Context, read: TableRead) -> Staged:
    """The changes in staging. ``file_no``: two for each version, even for rows that came, odd for rows that went."""
    if read.since is None or read.after is None or read.version is None:
        raise InvariantError("no changes to read")
    if read.since.removes:
        versions = range(read.after + 1, read.version + 1)
        uris = [f"{sign}{version}" for version in versions for sign in "+-"]
        sign = F.when(F.col(CHANGE_TYPE).isin(*REMOVED), "-").otherwise("+")
        uri = F.concat(sign, F.col(COMMIT_VERSION).cast("string"))
    else:
        uris, uri = ["+"], F.lit("+")
    name, epoch = read.table.name, datetime(1970, 1, 1)
    selected = [(FileStatus(name, name, text, 0, epoch), COMMIT) for text in uris]
    hidden = (CHANGE_TYPE, COMMIT_VERSION, COMMIT_TIMESTAMP) if read.since.removes else ()
    try:
        if read.since.removes:
            rows = read.table.feed(read.after, read.version)
        else:
            rows = read.table.files_added(read.since.added)
        return _stage(context, read, "changes", selected, rows, uri, hidden)
    except UserError:
        raise
    except Exception as error:  # vacuumed files, columns renamed or of other types since, and more
        raise HistoryError(java_message(error)) from error


def _net(changes: DataFrame) -> DataFrame:
    """The rows with ``_n``: how many more there are, or fewer, after a commit than before.

    What a commit took out and put back with nothing changed that the log format reads is left out.
    """
    columns = [name for name in changes.columns if name != FILE_NO]
    change = F.when(F.col(FILE_NO) % 2 == 0, 1).otherwise(-1)
    groups = changes.groupBy(*columns, F.floor(F.col(FILE_NO) / 2).alias("_commit"))
    return groups.agg(F.sum(change).alias(N)).where(F.col(N) != 0).drop("_commit")


def _touched(context: Context, read: TableRead, net: DataFrame, one_by_one: bool) -> Touched | None:
    """The groups that come again; None where none does."""
    fmt, table, by_id = context.fmt, read.table, context.fmt.event_id is not None
    day = F.lit(None).cast("date").alias(EVENT_DATE) if by_id else F.col(EVENT_DATE)
    found = net.where(F.col(N) < 0).select(KEY, day)
    events = store.find(context.spark, context.warehouse, EVENTS)
    refused = store.find(context.spark, context.warehouse, QUARANTINE)
    if one_by_one and events is not None:
        more = net.where((F.col(N) > 0) & F.col(REASON).isNull()).select(KEY, EVENT_DATE)
        span = _span(more)
        if span is not None:
            there = events.where(F.col(EVENT_DATE).between(*span)).select(event_key(fmt).alias(KEY))
            found = found.unionByName(more.join(there, KEY, "leftsemi"))
    path = f"{context.staging}/touched"
    found.distinct().write.parquet(path)
    keys = context.spark.read.schema(found.schema).parquet(path)
    refuses = F.count_if(F.startswith(KEY, F.lit("!")))
    (n, n_refuses) = keys.agg(F.count(F.lit(1)), refuses).first() or (0, 0)
    if not n:
        return None
    touched = Touched(table, keys.select(KEY).distinct(), fmt, _span(keys), all_valid=not n_refuses)
    n_events = n_refused = 0
    if events is not None:
        own = events.where(touched.events()).select(event_key(fmt).alias(KEY))
        n_events = own.join(touched.keys, KEY, "leftsemi").count()
    if refused is not None and n_refuses:
        raw = refused.where(table.owns_row("source_file")).select(refused_key(F.col("raw")).alias(KEY))
        n_refused = raw.join(touched.keys, KEY, "leftsemi").count()
    return replace(touched, n_events=n_events, n_refused=n_refused)


def _span(rows: DataFrame) -> tuple[date, date] | None:
    """The first and the last day of rows; None where they have none."""
    row = rows.agg(F.min(EVENT_DATE), F.max(EVENT_DATE)).first()
    return None if row is None or row[0] is None else (row[0], row[1])


def _near(rows: DataFrame, fmt: LogFormat, touched: Touched) -> DataFrame:
    """The rows of about the days of the groups, where a column with a type tells the time."""
    named = [name for name in fmt.ts.columns if name in rows.columns]
    simple = len(named) == 1 and not fmt.ts.plus and fmt.explode is None
    typed = simple and dict(rows.dtypes)[named[0]].startswith(("timestamp", "date"))
    if touched.days is None or not touched.all_valid or not typed:
        return rows
    time, (first, last) = F.col(f"`{named[0]}`"), touched.days
    return rows.where(time.between(F.lit(first - NEAR), F.lit(last + NEAR)))
