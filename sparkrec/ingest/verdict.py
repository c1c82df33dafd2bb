"""What the rows of a batch are judged to be, and what refuses a night before a table changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.errors import UserError
from sparkrec.ingest import parse
from sparkrec.ingest.context import Context, FileReader, FileRows, Staged, Verdict
from sparkrec.ingest.dedupe import FILE_NO
from sparkrec.ingest.going import Going
from sparkrec.ingest.new_events import existing
from sparkrec.ingest.parse import LEFT_OUT, REASON
from sparkrec.ingest.times import TS_TEXT
from sparkrec.prepare.cut import as_of, utc
from sparkrec.warehouse.tables import EVENT_DATE, TS

FEW = 5  # invalid rows
CHECK_FORMAT = "check logs.format and the file, or raise ingest.max_quarantine_share"


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


def check_files(verdict: Verdict, selected: Sequence[FileReader], columns: Sequence[str]) -> None:
    """Every file that has rows has the column that matters in some of them."""
    for number, (file, _) in enumerate(selected):
        found = verdict.files.get(number)
        if found and found.missing == found.rows:
            fix = "check logs.format and the file"
            raise UserError(f"no row of the log file has {' or '.join(columns)}", where=file.path, fix=fix)


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


def check_day(context: Context, valid: dict[date, int], going: Going, batch: Staged | None = None) -> None:
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
    events = existing(context, days, going)
    if events is None or events.where(within).isEmpty():
        span = f"the new files hold {min(valid)} to {max(valid)}; " if valid else ""
        fix = f"{span}choose another --run-date, or set ingest.allow_empty_day=true"
        raise UserError("a day without events", where=context.run_date.isoformat(), fix=fix)
