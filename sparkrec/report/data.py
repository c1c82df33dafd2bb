"""What the tables of a night hold: refused rows, sessions, baskets, the lists' spread over the items, sizes.

All is aggregated on lazy frames in polars' streaming engine, so memory holds no more than a row an item.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime

import polars as pl

from sparkrec.evaluation.values import RATING_BIASES, RATING_MEAN, RATINGS_SPLIT
from sparkrec.report.facts import Absent, Calibration, Lengths, Reason, Sample, Spread, TableSize, Tried, Tuned
from sparkrec.warehouse import query
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.reading import collected, exists, scan_rows
from sparkrec.warehouse.tables import (
    ID,
    IDX,
    INTERACTIONS,
    ITEM_ID,
    ITEM_IDX,
    ITEM_INDEX,
    ITEMS,
    METRICS,
    QUARANTINE,
    RATING,
    RATING_CALIBRATION,
    RUN_DATE,
    SEARCHES,
    SIMILAR_ITEM_ID,
    TUNED,
    USER_IDX,
    VALUE,
    Table,
    lists_table,
)

BEST_TRIED = 8  # settings shown for each model
RMSE = "rmse"  # of the metrics that decide, the one that is to be low
SAMPLES, RAW_CHARS = 3, 300  # refused rows shown for each reason, and characters of each
DECILES = 10


def quarantine(warehouse: Warehouse, times: Sequence[tuple[datetime, datetime]]) -> tuple[Reason, ...]:
    """The rows refused within the given times (UTC), by reason, the most frequent first.

    Raises:
        UserError: The table is missing or damaged.
    """
    within = pl.any_horizontal([pl.lit(False), *(pl.col("ingested_at").is_between(*span) for span in times)])
    rows = scan_rows(warehouse, QUARANTINE).filter(within)
    # A line's first characters alone: a file that is no text at all may be one row.
    short = rows.select("reason", "source_file", pl.col("raw").fill_null("").str.slice(0, RAW_CHARS + 1))
    found = collected(
        short.group_by("reason").agg(pl.len().alias("rows"), pl.struct("source_file", "raw").head(SAMPLES))
    ).sort("rows", "reason", descending=[True, False])
    return tuple(
        Reason(row["reason"], row["rows"], tuple(Sample(s["source_file"], s["raw"]) for s in row["source_file"]))
        for row in found.iter_rows(named=True)
    )


def tuned(warehouse: Warehouse, models: Sequence[str], night: date) -> tuple[Tuned, ...] | Absent:
    """What was found for each model by the last tuning up to a night, with the best of what was tried.

    Raises:
        UserError: A table is damaged.
    """
    if not exists(warehouse, TUNED):
        return Absent("No settings have been tuned: tune=off, or no night with enough before its hold-out yet.")
    mine = (pl.col(RUN_DATE) <= night) & pl.col("model").is_in(list(models))
    rows = collected(scan_rows(warehouse, TUNED).filter(mine)).sort("tuned_at").unique(["model", "metric"], keep="last")
    tried = collected(scan_rows(warehouse, SEARCHES).filter(mine)) if exists(warehouse, SEARCHES) else None
    found = []
    for row in rows.sort("model", "metric", descending=[False, True]).iter_rows(named=True):
        name, _, k = row["metric"].partition("@")
        of_length = pl.col("k") == int(k) if k else pl.col("k").is_null()
        best: list[Tried] = []
        if tried is not None:
            same = (pl.col("searched_at") == row["tuned_at"]) & (pl.col("model") == row["model"])
            reached = tried.filter(same & (pl.col("metric") == name) & of_length)
            best = [
                Tried(_settings(one["settings"]), one["value"])
                for one in reached.sort("value", descending=name != RMSE).head(BEST_TRIED).iter_rows(named=True)
            ]
        found.append(
            Tuned(
                row["model"], row[RUN_DATE], row["validation_date"], row["metric"], _settings(row["settings"]),
                row["value"], row["value_before"], row["low"], row["high"], row["taken"], row["n_tried"],
                row["n_tried_short"], row["seconds"], tuple(best),
            )
        )  # fmt: skip
    return tuple(found) or Absent("None of this night's models has been tuned.")


def _settings(text: str) -> str:
    return " ".join(f"{key}={json.dumps(value)}" for key, value in json.loads(text).items())


def lengths(warehouse: Warehouse, table: Table, version: int | None) -> Lengths:
    """Sessions or baskets by length, as of a version of their table.

    Raises:
        UserError: The table or the version is missing, or damaged.
    """
    rows = scan_rows(warehouse, table, version).select(USER_IDX, pl.col(ITEMS).list.len().alias("length"))
    counted = collected(
        rows.group_by("length").agg(pl.len().alias("n"), pl.col(USER_IDX).null_count().alias("anonymous"))
    ).sort("length")
    users = collected(rows.select(pl.col(USER_IDX).drop_nulls().n_unique())).item()
    counts = tuple(counted.select("length", "n").iter_rows())
    return Lengths(int(counted["n"].sum()), int(counted["anonymous"].sum()), users, counts)


def spread(warehouse: Warehouse, model: str, run_date: date, versions: dict[str, int | str]) -> Spread | None:
    """How a model's lists of a night spread over the items, by their popularity; None without lists.

    Args:
        warehouse: Where the tables are.
        model: The model.
        run_date: The night.
        versions: Those that the night wrote.

    Raises:
        UserError: A table or its version is missing, or damaged.
    """
    events = scan_rows(warehouse, INTERACTIONS, version_of(versions, INTERACTIONS)).group_by(ITEM_IDX).len("events")
    table = lists_table(model)
    shown = SIMILAR_ITEM_ID if SIMILAR_ITEM_ID in table.column_names else ITEM_ID
    mine = scan_rows(warehouse, table).filter(pl.col(RUN_DATE) == run_date)
    lists = mine.select(pl.col(shown).alias(ITEM_ID)).group_by(ITEM_ID).len("places")
    index = scan_rows(warehouse, ITEM_INDEX, version_of(versions, ITEM_INDEX))
    items = collected(
        index.join(events, left_on=IDX, right_on=ITEM_IDX, how="left")
        .join(lists, left_on=ID, right_on=ITEM_ID, how="left")
        .select(IDX, pl.col("events", "places").fill_null(0))
    )
    places = items["places"].sum()
    if not places:
        return None
    ranked = items.sort(["events", IDX], descending=[True, False]).with_row_index("at")
    tenths = ranked.group_by(pl.col("at") * DECILES // items.height).agg(pl.col("events", "places").sum())
    by_tenth = {at: (n_events, n_places) for at, n_events, n_places in tenths.iter_rows()}
    pairs = [by_tenth.get(at, (0, 0)) for at in range(DECILES)]
    return Spread(
        model,
        tuple(n_places / places for _, n_places in pairs),
        tuple(n_events / max(items["events"].sum(), 1) for n_events, _ in pairs),
        listed=items.filter(pl.col("places") > 0).height,
        items=items.height,
    )


def calibrations(warehouse: Warehouse, models: Sequence[str], night: date) -> tuple[Calibration, ...] | Absent:
    """How the predicted ratings of each model lie beside the true ones of a night's hold-out.

    Raises:
        UserError: A table is damaged.
    """
    nothing = Absent("No ratings were predicted this night.")
    if not exists(warehouse, RATING_CALIBRATION):
        return nothing
    mine = pl.col(RUN_DATE) == night
    rows = collected(scan_rows(warehouse, RATING_CALIBRATION).filter(mine)).sort("place")
    of_ratings = (pl.col("split") == RATINGS_SPLIT) & (pl.col("metric") == "rmse")
    rmse = dict(collected(scan_rows(warehouse, METRICS).filter(mine & of_ratings)).select("model", VALUE).iter_rows())
    found = []
    for model in models:
        points = rows.filter(pl.col("model") == model).select("place", "predicted", RATING, "n")
        if points.height:
            shown = [name for name in (model, RATING_BIASES, RATING_MEAN) if name in rmse]
            found.append(Calibration(model, tuple(points.iter_rows()), tuple((name, rmse[name]) for name in shown)))
    return tuple(found) or nothing


def sizes(warehouse: Warehouse) -> tuple[TableSize, ...]:
    """The tables as they are now.

    Raises:
        UserError: A table is damaged.
    """
    rows = query.tables(warehouse).iter_rows(named=True)
    return tuple(TableSize(r["name"], r["rows"], r["files"], r["size_bytes"], r["version"], r["comment"]) for r in rows)


def version_of(versions: dict[str, int | str], table: Table) -> int | None:
    """The version of a table that a night wrote; None, which stands for the table as it is now, where it is unknown."""
    found = versions.get(table.name)
    return found if isinstance(found, int) else None
