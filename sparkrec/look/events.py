"""Rows of a log as the events that a night would make of them, for a look at them: the declared format, by polars.

What a night does is ``sparkrec.ingest``; ``sparkrec look --check`` takes a log in by that. Here some rows are enough.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sparkrec.look.times import EARLIEST, PER_SECOND, times
from sparkrec.settings.formats import Attribute, Field, LogFormat
from sparkrec.zones import zone_of

if TYPE_CHECKING:
    import polars as pl

IDS = ("user", "item", "session", "basket")
NUMBERS = ("value", "quantity", "price")
REASON, LEFT_OUT = "reason", "left out"  # by other_events: leave_out
DURATIONS = {  # microseconds
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "day": 86_400_000_000,
}


def as_events(rows: pl.DataFrame, fmt: LogFormat) -> pl.DataFrame:
    """The events of raw rows.

    Args:
        rows: Columns of text, exploded where the format explodes them.
        fmt: The format.

    Returns:
        ``user``, ``item``, ``ts`` (UTC), ``event_type``, ``value``, ``quantity``, ``price``, ``session``, ``basket``,
        and ``reason``: why a night would refuse the row, or null.
    """
    ids = [_id(rows, getattr(fmt, name), fmt).alias(name) for name in IDS]
    numbers = [number(pick(rows, getattr(fmt, name), fmt.nulls), fmt).alias(name) for name in NUMBERS]
    ts = rows.select(pick(rows, fmt.ts, fmt.nulls).alias("ts")).to_series()
    typed = rows.select(*ids, *numbers, _event_type(rows, fmt).alias("event_type"))
    return typed.with_columns(ts=_in_utc(_times(rows, ts, fmt), fmt)).with_columns(_reason(fmt).alias(REASON))


def pick(rows: pl.DataFrame, field: Field | Attribute | None, nulls: Sequence[str]) -> pl.Expr:
    """The text of a field: of the first of its columns that has one."""
    import polars as pl

    names = [name for name in (field.columns if field else ()) if name in rows.columns]
    if not names:
        return pl.lit(None, pl.String)
    texts = [pl.when(~pl.col(n).str.strip_chars().is_in(["", *nulls])).then(pl.col(n)) for n in names]
    if isinstance(field, Field) and field.join is not None:
        joined = pl.concat_str(texts, separator=field.join, ignore_nulls=True)
        return pl.when(joined != "").then(joined)
    return pl.coalesce(texts)


def number(text: pl.Expr, fmt: LogFormat) -> pl.Expr:
    """A number as the format writes it, or null."""
    import polars as pl

    if fmt.thousands:
        text = text.str.replace_all(fmt.thousands, "", literal=True)
    if fmt.decimal != ".":
        text = text.str.replace(fmt.decimal, ".", literal=True)
    return text.str.strip_chars().cast(pl.Float64, strict=False)


def _id(rows: pl.DataFrame, field: Field | None, fmt: LogFormat) -> pl.Expr:
    text = pick(rows, field, (*fmt.nulls, *fmt.id_nulls))
    steps = field.normalize if field else ()
    if "trim" in steps:
        text = text.str.strip_chars()
    if "integer" in steps:
        text = text.str.replace(r"^(-?\d+)\.0+$", "${1}")
    return text.str.to_uppercase() if "upper" in steps else text.str.to_lowercase() if "lower" in steps else text


def _times(rows: pl.DataFrame, texts: pl.Series, fmt: LogFormat) -> pl.Series:
    import polars as pl

    summed = fmt.ts.cumulative is not None
    found = _summed(rows, texts, fmt) if summed else times(texts, fmt.ts.unit, fmt.ts.day_zero)
    for part in fmt.ts.plus:
        text = rows.select(pick(rows, Field(part.columns), fmt.nulls).alias("part")).to_series().str.strip_chars()
        found = found + _duration(text, part.unit).cast(pl.Duration("us"))
    return found


def _summed(rows: pl.DataFrame, texts: pl.Series, fmt: LogFormat) -> pl.Series:
    """Spans since the row before, summed in order; of rows with equal ``by`` and ``order`` one counts."""
    import polars as pl

    cumulative = fmt.ts.cumulative
    assert cumulative is not None  # the caller's case
    order = next(name for name in cumulative.order if name in rows.columns)
    spans = _duration(texts.str.strip_chars(), fmt.ts.unit[0]).fill_null(0)
    place = pl.col(order).cast(pl.Float64, strict=False).alias("_order")
    each = rows.select(*cumulative.by, place).with_columns(spans.alias("_span"))
    once = each.unique([*cumulative.by, "_order"], keep="first", maintain_order=True).sort("_order")
    sums = once.with_columns(pl.col("_span").cum_sum().over(list(cumulative.by)).alias("_sum")).drop("_span")
    total = each.join(sums, on=[*cumulative.by, "_order"], how="left", maintain_order="left")["_sum"]
    begin = datetime.combine(fmt.ts.day_zero or date(1970, 1, 1), datetime.min.time())
    return begin + total.cast(pl.Duration("us"))


def _duration(text: pl.Series, unit: str) -> pl.Series:
    import polars as pl

    if unit == "HHMM":
        number = text.cast(pl.Int64, strict=False)
        return ((number // 100) * 60 + number % 100) * DURATIONS["min"]
    if ":" in unit:
        parts = text.str.split(":").list
        seconds = [
            parts.get(i, null_on_oob=True).cast(pl.Int64, strict=False).fill_null(0) * n
            for i, n in enumerate((3600, 60, 1))
        ]
        return (seconds[0] + seconds[1] + seconds[2]) * DURATIONS["s"]
    return (text.cast(pl.Float64, strict=False) * DURATIONS[unit]).round().cast(pl.Int64, strict=False)


def _in_utc(local: pl.Series, fmt: LogFormat) -> pl.Series:
    """Times of the format's zone in UTC; of numbers, and of texts with an offset, nothing changes."""
    if fmt.timezone == "UTC" or fmt.ts.unit[0] in PER_SECOND:
        return local
    zone_of(fmt.timezone)
    there = local.dt.replace_time_zone(fmt.timezone, ambiguous="earliest", non_existent="null")
    return there.dt.convert_time_zone("UTC").dt.replace_time_zone(None)


def _event_type(rows: pl.DataFrame, fmt: LogFormat) -> pl.Expr:
    import polars as pl

    declared: Any = Field(fmt.event_type.columns) if fmt.event_type.columns else None
    found = pl.coalesce(pick(rows, declared, fmt.nulls).str.strip_chars(), pl.lit(fmt.event_type.default))
    for rule in reversed(fmt.event_type.rules):
        text = pick(rows, Field((rule.column,)), fmt.nulls)
        if rule.starts_with is not None:
            fits = text.str.starts_with(rule.starts_with)
        else:
            fits = text == rule.equals if rule.equals is not None else number(text, fmt) < rule.below
        found = pl.when(fits.fill_null(value=False)).then(pl.lit(rule.type)).otherwise(found)
    return found


def _reason(fmt: LogFormat) -> pl.Expr:
    import polars as pl

    latest = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)
    col = pl.col
    left = fmt.other_events == "leave_out"
    strange = ~col("event_type").is_in(fmt.event_types) | col("item").is_null()
    reasons = [
        (strange if left else pl.lit(value=False), LEFT_OUT),
        (col("item").is_null(), "missing item"),
        (col("ts").is_null(), "bad ts"),
        ((col("ts") < EARLIEST) | (col("ts") > latest), "ts out of range (wrong unit?)"),
        (~col("event_type").is_in(fmt.event_types), "unknown event type"),
    ]
    if fmt.missing_user == "quarantine":
        reasons.append((col("user").is_null(), "missing user"))
    required = {
        name: field for name in (*NUMBERS, "session", "basket") if (field := getattr(fmt, name)) and field.required
    }
    reasons += [(col(name).is_null(), f"missing {name}") for name in required]
    for check in fmt.checks:
        applies, found = ~col("event_type").is_in(list(check.unless)), col(check.field)
        bad = [wrong(found, bound) for bound, wrong in (
            (check.above, operator.le), (check.at_least, operator.lt), (check.at_most, operator.gt)
        ) if bound is not None]  # fmt: skip
        reasons += [(applies & wrong, f"{check.field} out of bounds") for wrong in bad]
    return pl.coalesce([pl.when(condition.fill_null(value=False)).then(pl.lit(why)) for condition, why in reasons])
