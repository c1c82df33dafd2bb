"""The events of a batch that are new: equal ones are left out, in the batch and against the table."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from sparkrec.ingest.context import Context, Kept, Staged, Verdict
from sparkrec.ingest.dedupe import FILE_NO, IN_TABLE, LAST_NO, N_ROWS, added, group_equal, holders, numbered
from sparkrec.ingest.going import Going
from sparkrec.ingest.parse import REASON
from sparkrec.warehouse import store
from sparkrec.warehouse.tables import EVENT_DATE, EVENT_ID, EVENT_TYPE, EVENTS

MANY_DAYS = 400  # beyond it a range of days leaves out files well enough, and is no longer to plan


def stage_new_events(context: Context, batch: Staged, verdict: Verdict, going: Going) -> Kept:
    """Leaves out rows that are events already, in the batch and against the table's rows of the same days or ids."""
    fmt, by_id = context.fmt, context.fmt.event_id is not None
    valid = batch.rows.where(F.col(REASON).isNull())
    there = _existing_ids(context, valid, going) if by_id else existing(context, list(verdict.valid), going)
    each = Observation()
    if fmt.equal_rows == "keep":
        valid, there = numbered(valid, FILE_NO), None if there is None else numbered(there, None)
    elif fmt.equal_rows == "add":
        valid = added(valid)
    counter, new = Observation(), F.col(FILE_NO) != IN_TABLE
    n_kept = F.count_if(new).alias("kept")
    n_impressions = F.count_if(new & F.col(EVENT_TYPE).isin(*fmt.impression_events)).alias("impressions")
    grouped = group_equal(valid.observe(each, F.count(F.lit(1)).alias("rows")), there, bool(fmt.order), by_id)
    grouped = grouped.observe(counter, F.sum(N_ROWS).alias("rows"), n_kept, n_impressions)
    path = f"{context.staging}/events"
    grouped.where(F.col(LAST_NO) != IN_TABLE).drop(N_ROWS).write.parquet(path)  # what the batch has
    counts = counter.get
    kept, rows = int(counts["kept"]), int(counts["rows"] or 0)
    staged = context.spark.read.schema(grouped.drop(N_ROWS).schema).parquet(path)
    shared = staged.where(F.col(FILE_NO) != F.col(LAST_NO))
    shares = {} if rows == kept else _shares(batch, holders(valid, there, shared, by_id))
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


def existing(context: Context, days: list[date], going: Going) -> DataFrame | None:
    """The events of the table on some days, but for those that go; None where there is no table, or no day."""
    events = store.find(context.spark, context.warehouse, EVENTS) if days else None
    if events is None:
        return None
    day = F.col(EVENT_DATE)
    in_batch = day.isin(days) if len(days) <= MANY_DAYS else day.between(min(days), max(days))
    return going.left(events.where(in_batch))


def _existing_ids(context: Context, valid: DataFrame, going: Going) -> DataFrame | None:
    """The events of the table that have the id of one of the valid rows, and those without an id."""
    events = store.find(context.spark, context.warehouse, EVENTS)
    if events is None:
        return None
    rows = going.left(events)
    ids = valid.select(EVENT_ID).where(F.col(EVENT_ID).isNotNull()).distinct()
    return rows.join(ids, EVENT_ID, "leftsemi").unionByName(rows.where(F.col(EVENT_ID).isNull()))
