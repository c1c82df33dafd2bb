"""Times of raw rows: units, patterns, sums of columns, spans since the row before. Pure transforms."""

from __future__ import annotations

from datetime import UTC, date, datetime

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sparkrec.ingest.values import Notation, number, pick
from sparkrec.settings.formats import (
    WEEKDAY,
    Field,
    LogFormat,
    begins_with_weekday,
    has_offset,
    without_weekday,
)

TS_VALUE, TS_TEXT, MICROS = "_ts", "_ts_text", "_micros"
MICROS_PER_UNIT = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3, "min": 60e6, "h": 3600e6, "day": 86400e6}
CLOCKS = {
    "HHMM": r"^(\d{0,2}?)(\d{1,2})()$",
    "HH:mm": r"^(\d{1,2}):(\d\d)()$",
    "HH:mm:ss": r"^(\d{1,2}):(\d\d):(\d\d)$",
}
# ISO 8601 and RFC 3339, and as databases write it: date; blank or T, time; zone.
ISO = r"^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))?)?\s*(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?$"
_SPAN, _BY, _ORDER, _PLUS = "_span", "_by", "_order", "_plus{}"
FAR = 1e17  # microseconds, thousands of years: what is beyond it is in no time zone


def required_time_columns(ts: Field) -> list[tuple[str, ...]]:
    """Those that a log must have besides ``ts.columns``: for each the names that it may go by."""
    since = [*((name,) for name in ts.cumulative.by), ts.cumulative.order] if ts.cumulative else []
    return [*(span.columns for span in ts.plus), *since]


def time_values(raw: DataFrame, fmt: LogFormat) -> list[Column]:
    """What a time is made of, as the rows have it: ``_ts``, ``_ts_text`` (all of it, to be shown), and further ones."""
    typed = [n for n in fmt.ts.columns if dict(raw.dtypes).get(n, "").startswith("timestamp")]
    ts = F.col(f"`{typed[0]}`") if typed else pick(raw, fmt.ts, fmt.nulls)
    plus = [pick(raw, Field(span.columns), fmt.nulls) for span in fmt.ts.plus]
    values = [ts.alias(TS_VALUE), F.concat_ws(" + ", ts.cast("string"), *plus).alias(TS_TEXT)]
    values += [text.alias(_PLUS.format(i)) for i, text in enumerate(plus)]
    if fmt.ts.cumulative:
        by = [pick(raw, Field((name,)), fmt.nulls) for name in fmt.ts.cumulative.by]
        has_all = F.lit(True)
        for column in by:
            has_all = has_all & column.isNotNull()
        values.append(F.when(has_all, F.array(*by)).alias(_BY))
        values.append(pick(raw, Field(fmt.ts.cumulative.order), fmt.nulls).alias(_ORDER))
    return values


def missing(fmt: LogFormat) -> Column:
    """Whether a row lacks a part of its time."""
    first = F.lit(False) if fmt.ts.cumulative else F.col(TS_VALUE).isNull()
    for i in range(len(fmt.ts.plus)):
        first = first | F.col(_PLUS.format(i)).isNull()
    return first


def with_micros(values: DataFrame, fmt: LogFormat) -> DataFrame:
    """Adds ``_micros``: microseconds since 1970, UTC, null of what is no time.

    They are a double: exact until 2255, and wide enough for a wrong unit.
    """
    written = Notation.of(fmt)
    readings: list[tuple[Column, Column | None]]
    if fmt.ts.cumulative:
        values = _since_the_first(values, fmt)
        readings = [(_days(fmt.ts.day_zero) + F.col(_SPAN), F.lit(True))]
    else:
        type_ = dict(values.dtypes)[TS_VALUE]
        units = fmt.ts.unit if type_ == "string" else fmt.ts.unit[:1]
        readings = [r for unit in units for r in _readings(F.col(TS_VALUE), type_, unit, fmt)]
    plus = F.lit(0.0)
    for i, span in enumerate(fmt.ts.plus):
        plus = plus + span_micros(F.col(_PLUS.format(i)), span.unit, written)
    instants = [_instant(micros + plus if fmt.ts.plus else micros, local, fmt.timezone) for micros, local in readings]
    return values.withColumn(MICROS, F.coalesce(*instants))


def _instant(micros: Column, local: Column | None, zone: str) -> Column:
    """Microseconds since 1970 in UTC of microseconds on the clocks of a zone; of others as they are."""
    if local is None or zone == "UTC":
        return micros
    near = F.when(F.abs(micros) < FAR, micros)
    utc = F.unix_micros(F.to_utc_timestamp(F.timestamp_micros(near.cast("bigint")), zone)).cast("double")
    return F.coalesce(utc, micros)


def _readings(ts: Column, type_: str, unit: str, fmt: LogFormat) -> list[tuple[Column, Column | None]]:
    """What a time may be by one unit: microseconds, and whether they are on the clocks of the log's zone, or None."""
    local = F.lit(True)
    if type_ != "string":  # the session's zone is UTC, so that a time without a zone keeps its figures
        micros = F.unix_micros(ts.cast("timestamp")).cast("double")
        return [(micros, local if type_ == "timestamp_ntz" else None)]
    if unit == "day":
        return [(_days(fmt.ts.day_zero) + span_micros(ts, unit, Notation.of(fmt)), local)]
    if unit in MICROS_PER_UNIT:
        return [(span_micros(ts, unit, Notation.of(fmt)), None)]
    if unit == "iso":
        return _iso(ts)
    pattern = "yyyy-MM-dd HH:mm:ss" if unit == "timestamp" else unit
    if begins_with_weekday(pattern):  # which says nothing, and which Spark does not read
        ts, pattern = F.regexp_replace(ts, WEEKDAY, ""), without_weekday(pattern)
    time = F.unix_micros(F.try_to_timestamp(ts, F.lit(pattern))).cast("double")
    return [(time, None if has_offset(unit) else local)]


def _iso(text: Column) -> list[tuple[Column, Column | None]]:
    text = F.upper(F.trim(text))
    day, clock, fraction, zone = (F.regexp_extract(text, ISO, group) for group in (1, 2, 3, 4))
    time = F.concat_ws(" ", day, F.when(clock != "", clock)).try_cast("timestamp")
    part = F.when(fraction != "", F.rpad(F.substring(fraction, 1, 6), 6, "0").cast("double")).otherwise(0.0)
    micros = F.unix_micros(time).cast("double") + part
    hours, minutes = F.substring(zone, 1, 3).try_cast("int"), F.right(zone, F.lit(2)).try_cast("int")
    minutes = F.when(F.length(zone) > 3, minutes * F.when(F.startswith(zone, F.lit("-")), -1).otherwise(1)).otherwise(0)
    named = F.when(zone.isin("Z", "UTC", "GMT"), 0.0).when(
        (F.abs(hours) <= 18) & (F.abs(minutes) < 60), hours * 3600e6 + minutes * 60e6
    )
    return [(micros - F.when(zone != "", named), None), (F.when(zone == "", micros), F.lit(True))]


def span_micros(text: Column, unit: str, written: Notation) -> Column:
    """A span of time in microseconds, null of what is none.

    Args:
        text: As written.
        unit: One of ``SPAN_UNITS``.
        written: How numbers are.
    """
    if unit in MICROS_PER_UNIT:
        return F.round(number(text, written) * MICROS_PER_UNIT[unit])
    hours, minutes, seconds = (
        F.coalesce(F.regexp_extract(text, CLOCKS[unit], group).try_cast("int"), F.lit(0)) for group in (1, 2, 3)
    )
    valid = text.rlike(CLOCKS[unit]) & (hours < 24) & (minutes < 60) & (seconds < 60)
    return F.when(valid, (hours * 3600 + minutes * 60 + seconds) * 1e6)


def _days(day_zero: date | None) -> Column:
    zero = datetime.combine(day_zero or date(1970, 1, 1), datetime.min.time(), UTC)
    return F.lit(zero.timestamp() * 1e6)


def _since_the_first(values: DataFrame, fmt: LogFormat) -> DataFrame:
    """Adds ``_span``: the sum of the spans up to a row's, of the rows of the same ``by``, one of each ``order``.

    It is null from the first on that cannot be read, or is missing though it is not the first of its ``by``.
    """
    written = Notation.of(fmt)
    values = values.withColumn(_ORDER, number(F.col(_ORDER), written))
    alike, once = Window.partitionBy(_BY, _ORDER), Window.partitionBy(_BY, _ORDER).orderBy(F.lit(0))
    until = Window.partitionBy(_BY).orderBy(_ORDER).rangeBetween(Window.unboundedPreceding, Window.currentRow)
    span = span_micros(F.col(TS_VALUE), fmt.ts.unit[0], written)
    unread = F.col(TS_VALUE).isNotNull() & span.isNull()
    first = F.col(_ORDER) == F.min(_ORDER).over(Window.partitionBy(_BY))
    one = values.withColumns({
        _SPAN: F.when(F.row_number().over(once) == 1, F.max(span).over(alike)),
        "_unknown": unread | (~first & F.max(span).over(alike).isNull()),
    })  # fmt: skip
    known = F.col(_BY).isNotNull() & F.col(_ORDER).isNotNull() & ~F.max("_unknown").over(until)
    total = F.coalesce(F.sum(_SPAN).over(until), F.lit(0.0))
    return one.withColumn(_SPAN, F.when(known, total)).drop("_unknown")
