"""New files into the attempt's staging folder: read, parsed, counted. No table changes here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import reduce

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F
from pyspark.sql.types import LongType

from sparkrec.errors import InvariantError, UserError
from sparkrec.ingest import attributes, parse
from sparkrec.ingest.context import Context, FileReader, Staged, Verdict
from sparkrec.ingest.dedupe import FILE_NO
from sparkrec.ingest.hadoop import normal_uri
from sparkrec.ingest.joined import Partners, missing_key, parse_joined, partners, their_key, with_partners
from sparkrec.ingest.parse import REASON
from sparkrec.ingest.raw import BLOCK, ROW, URI
from sparkrec.ingest.readers import group_files, is_read_failure, read_group, unreadable
from sparkrec.ingest.selection import ITEMS_FILE, JOINED_FILE
from sparkrec.ingest.unpack import make_readable
from sparkrec.ingest.values import Notation
from sparkrec.ingest.verdict import check_files, judge
from sparkrec.log import log_event
from sparkrec.settings.formats import Explode, Join, Reader
from sparkrec.warehouse.tables import EVENT_ORDER

PART = "_part"  # of the files that were read: a log file, or a member of one


def stage_logs(
    context: Context, selected: Sequence[FileReader], others: Sequence[Partners] = ()
) -> tuple[Staged | None, Verdict]:
    """Reads and parses the new log files into staging, and counts what came of them; None where nothing is in them.

    Args:
        context: The attempt.
        selected: The files.
        others: What their rows are joined with.
    """
    fmt, bounds = context.fmt, bounds_of(context)
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
    check_files(verdict, selected, fmt.item.columns)
    return _in_place(context, staged) if fmt.by_row else staged, verdict


def bounds_of(context: Context) -> parse.Bounds:
    """What is taken for a valid row.

    Raises:
        UserError: ``ingest.min_ts`` is no date.
    """
    ingest = context.config.ingest
    try:
        min_ts = date.fromisoformat(ingest.min_ts)
    except ValueError as error:
        raise UserError("wrong configuration value", where=f"ingest.min_ts={ingest.min_ts}", fix="a date") from error
    return parse.Bounds(min_ts, context.now + timedelta(days=1), ingest.max_quantity)


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
    check_files(verdict, selected, keys)
    return staged, verdict


def partners_of(context: Context, staged: Sequence[Staged | None]) -> list[Partners]:
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
    check_files(verdict, selected, declared.id.columns)
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
    raws = [
        read_group(context.spark, group, names, required, context.config.logs.path, ids, explode, by_row)
        for group in groups
    ]  # fmt: skip
    try:
        return into_staging(context, folder, raws, selected, files, parse_group, together, by_row)
    except Exception as error:  # Py4JJavaError or PySparkException
        if is_read_failure(error):
            raise unreadable(error, [file for file, _ in files]) from error
        raise


def into_staging(
    context: Context,
    folder: str,
    raws: Sequence[DataFrame],
    selected: Sequence[FileReader],
    read: Sequence[FileReader],
    parse_group: Callable[[DataFrame], DataFrame],
    together: bool = False,
    by_row: bool = False,
) -> Staged:
    """Parses raw rows into a folder of staging.

    Args:
        context: The attempt.
        folder: Its name.
        raws: The rows, counted here as they are read.
        selected: The files that they are of, which are numbered in this order.
        read: The same files as they were read, by the ``_uri`` of the rows: a packed one is several.
        parse_group: Takes raw rows apart.
        together: Whether all rows are parsed as one.
        by_row: Whether the rows have places.
    """
    counters = [Observation() for _ in raws]
    raws = [raw.observe(counter, F.count(F.lit(1)).alias("rows")) for raw, counter in zip(raws, counters, strict=True)]
    if together:
        raws = [reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), raws)]
    rows = reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), map(parse_group, raws))
    number_of = {file.uri: i for i, (file, _) in enumerate(selected)}
    numbers = [(normal_uri((file.copy or file).uri), number_of[file.uri]) for file, _ in read]
    parts = {PART: list(range(len(read)))} if by_row else {}
    numbered = context.local({URI: [u for u, _ in numbers], FILE_NO: [i for _, i in numbers], **parts})
    path = f"{context.staging}/{folder}"
    rows.join(F.broadcast(numbered), URI, how="inner").drop(URI).write.parquet(path)
    n_rows = sum(int(counter.get["rows"]) for counter in counters)
    schema = rows.drop(URI).schema.add(FILE_NO, LongType())
    schema = schema.add(PART, LongType()) if by_row else schema
    return Staged(context.spark.read.schema(schema).parquet(path), tuple(file.name for file, _ in selected), n_rows)
