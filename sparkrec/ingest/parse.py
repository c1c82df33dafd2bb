"""Raw rows → events with a reason where they cannot be taken in. Pure transforms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec.ingest.elements import empty
from sparkrec.ingest.raw import BLOCK, FAULT, RAW, ROW, URI
from sparkrec.ingest.times import (
    MICROS,
    TS_TEXT,
    missing,
    required_time_columns,
    time_values,
    with_micros,
)
from sparkrec.ingest.values import PLAIN, Notation, number, pick, pick_id
from sparkrec.settings.formats import Attribute, Check, Field, LogFormat
from sparkrec.settings.ids import EXACT, EXPONENT
from sparkrec.warehouse.tables import (
    BASKET_ID,
    EVENT_DATE,
    EVENT_ID,
    EVENT_ORDER,
    EVENT_TYPE,
    ITEM_ID,
    LOG_SESSION_ID,
    PRICE,
    QUANTITY,
    TEXT,
    TS,
    USER_ID,
    VALUE,
)  # fmt: skip

REASON, BAD_TS, WRONG_UNIT = "reason", "bad ts", "(wrong unit?)"
ITEM_PREFIX, USER_PREFIX = "item__", "user__"
NUMBERS = (VALUE, QUANTITY, PRICE)
LEFT_OUT = "left out: "


@dataclass(frozen=True)
class Bounds:
    """What is taken for a valid row.

    Attributes:
        min_ts: Earliest date of an event.
        max_ts: Latest time of an event, naive UTC.
        max_quantity: Largest absolute quantity.
    """

    min_ts: date
    max_ts: datetime
    max_quantity: float


def id_columns(fmt: LogFormat) -> list[str]:
    """The columns of the log that hold ids."""
    return [name for f in id_fields(fmt).values() if f for name in f.columns]


def id_fields(fmt: LogFormat) -> dict[str, Field | None]:
    """The ids among the columns of ``events``, with where they come from."""
    return {
        USER_ID: fmt.user, ITEM_ID: fmt.item, LOG_SESSION_ID: fmt.session, BASKET_ID: fmt.basket, EVENT_ID: fmt.event_id
    }  # fmt: skip


def required_columns(fmt: LogFormat) -> list[tuple[str, ...]]:
    """For each column that a log must have, the names it may go by."""
    fields = [fmt.user, fmt.item, fmt.ts, fmt.value, fmt.quantity, fmt.price, fmt.text, fmt.session, fmt.basket]
    named = [f.columns for f in (*fields, fmt.event_id) if f and f.required] + required_time_columns(fmt.ts)
    named += [fmt.order] if fmt.order and not fmt.by_row else []
    return named + ([(fmt.explode.column,)] if fmt.explode else [])


def parse_rows(raw: DataFrame, fmt: LogFormat, bounds: Bounds) -> DataFrame:
    """Takes raw rows apart.

    Returns:
        The columns of ``events`` without ``source``, the attributes with their prefixes, ``_uri``, ``reason`` (null
        for a valid row), ``_raw`` and ``_ts_text``, the time as written (both null for a valid row). Where the rows'
        places decide between equal times, ``_block`` and ``_row`` stand for ``event_order``.
    """
    places = [F.col(name) for name in (BLOCK, ROW) if name in raw.columns]
    texts = raw.select(RAW, FAULT, URI, *places, *_texts(raw, fmt), *_attributes(raw, fmt))
    numbers = {f"_n_{name}": number(F.col(name), Notation.of(fmt)) for name in (*NUMBERS, EVENT_ORDER)}
    typed = with_micros(texts.withColumns(numbers), fmt)
    return _events(typed.withColumn(REASON, _reason(fmt, bounds)))


def attribute(raw: DataFrame, declared: Attribute, nulls: Sequence[str], written: Notation = PLAIN) -> Column:
    """The value of an attribute, in its type; null where it has none or a malformed one."""
    value = pick(raw, declared, nulls)
    if declared.extract:
        found = F.regexp_extract(value, declared.extract, 1)
        value = F.when(found != "", found)
    if declared.type == "double":
        return number(value, written)
    if declared.type == "int" and written != PLAIN:
        value = F.when(number(value, written) % 1 == 0, number(value, written).try_cast("int"))
    if declared.type == "array<float>":
        return F.from_json(value, declared.type)
    return value.try_cast("int") if declared.type == "int" else value


def _texts(raw: DataFrame, fmt: LogFormat) -> list[Column]:
    fields = {VALUE: fmt.value, QUANTITY: fmt.quantity, PRICE: fmt.price, TEXT: fmt.text}
    texts = [pick(raw, f, fmt.nulls).alias(name) for name, f in fields.items()]
    ids = [pick_id(raw, f, (*fmt.nulls, *fmt.id_nulls)).alias(name) for name, f in id_fields(fmt).items()]
    order = Field(fmt.order) if fmt.order and not fmt.by_row else None
    texts.append(pick(raw, order, fmt.nulls).alias(EVENT_ORDER))
    return [*texts, *ids, *time_values(raw, fmt), _event_type(raw, fmt).alias(EVENT_TYPE)]


def _attributes(raw: DataFrame, fmt: LogFormat) -> list[Column]:
    declared = [(ITEM_PREFIX, a) for a in fmt.item_attributes] + [(USER_PREFIX, a) for a in fmt.user_attributes]
    return [attribute(raw, a, fmt.nulls, Notation.of(fmt)).alias(prefix + a.name) for prefix, a in declared]


def _event_type(raw: DataFrame, fmt: LogFormat) -> Column:
    declared = Field(fmt.event_type.columns) if fmt.event_type.columns else None
    otherwise = F.coalesce(pick(raw, declared, fmt.nulls), F.lit(fmt.event_type.default))
    result = None
    for rule in fmt.event_type.rules:
        text = pick(raw, Field((rule.column,)), fmt.nulls)
        if rule.starts_with is not None:
            fits = F.startswith(text, F.lit(rule.starts_with))
        else:
            below = number(text, Notation.of(fmt)) < F.lit(rule.below)
            fits = text == rule.equals if rule.equals is not None else below
        result = F.when(fits, rule.type) if result is None else result.when(fits, rule.type)
    return otherwise if result is None else result.otherwise(otherwise)


def _reason(fmt: LogFormat, bounds: Bounds) -> Column:
    """Why a row is refused: the first of these that holds, else null."""
    min_ts = datetime.combine(bounds.min_ts, datetime.min.time(), UTC).timestamp() * 1e6
    max_ts = bounds.max_ts.replace(tzinfo=UTC).timestamp() * 1e6
    micros, n_quantity = F.col(MICROS), F.col(f"_n_{QUANTITY}")
    unknown, type_ = ~F.col(EVENT_TYPE).isin(fmt.event_types), F.coalesce(F.col(EVENT_TYPE), F.lit(""))
    reasons: list[tuple[Column, Column | str]] = []
    if fmt.other_events == "leave_out":
        nothing = F.lit(False) if fmt.explode is None else F.col(FAULT).eqNullSafe(empty(fmt.explode))
        readable = F.col(FAULT).isNull() | nothing
        reasons.append((readable & (unknown | F.col(ITEM_ID).isNull()), F.concat(F.lit(LEFT_OUT), type_)))
    reasons += [
        (F.col(FAULT).isNotNull(), F.col(FAULT)),
        (F.col(ITEM_ID).isNull(), "missing item"),
        (missing(fmt), "missing ts"),
        (micros.isNull(), BAD_TS),
        (micros < min_ts, f"ts before {bounds.min_ts} {WRONG_UNIT}"),
        (micros > max_ts, f"ts in the future {WRONG_UNIT}"),
        (unknown, "unknown event type"),
    ]
    if fmt.missing_user == "quarantine":
        reasons.append((F.col(USER_ID).isNull(), "missing user"))
    declared = [(VALUE, fmt.value), (QUANTITY, fmt.quantity), (PRICE, fmt.price)]
    texts = [(LOG_SESSION_ID, fmt.session), (BASKET_ID, fmt.basket), (TEXT, fmt.text)]
    reasons += [(F.col(n).isNull(), f"missing {n}") for n, f in declared + texts if f and f.required]
    if fmt.event_id and fmt.event_id.required:
        reasons.append((F.col(EVENT_ID).isNull(), f"missing {EVENT_ID}"))
    reasons += [(F.col(n).isNotNull() & F.col(f"_n_{n}").isNull(), f"bad {n}") for n, f in declared if f]
    if fmt.order and not fmt.by_row:
        n_order = F.col(f"_n_{EVENT_ORDER}")
        whole_number = F.coalesce((n_order == F.floor(n_order)) & (F.abs(n_order) <= EXACT["double"]), F.lit(False))
        reasons.append((F.col(EVENT_ORDER).isNotNull() & ~whole_number, "bad order: no whole number"))
    whole = [name for name, f in id_fields(fmt).items() if f and "integer" in f.normalize]
    reasons += [(F.col(name).rlike(EXPONENT), f"{name} too large for a double") for name in whole]
    reasons.append((F.abs(n_quantity) > bounds.max_quantity, f"{QUANTITY} out of range"))
    reasons += [found for check in fmt.checks for found in _check(check)]
    return F.coalesce(*[F.when(condition, why) for condition, why in reasons])


def _check(check: Check) -> list[tuple[Column, str]]:
    value, applies = F.col(f"_n_{check.field}"), ~F.col(EVENT_TYPE).isin(list(check.unless))
    found = []
    if check.above is not None:
        found.append((applies & (value <= check.above), f"{check.field} not above {check.above:g}"))
    if check.at_least is not None:
        found.append((applies & (value < check.at_least), f"{check.field} below {check.at_least:g}"))
    if check.at_most is not None:
        found.append((applies & (value > check.at_most), f"{check.field} above {check.at_most:g}"))
    return found


def _events(judged: DataFrame) -> DataFrame:
    valid = F.col(REASON).isNull()
    ts = F.timestamp_micros(F.when(valid, F.col(MICROS)).cast("bigint"))
    numbers = [F.col(f"_n_{n}").alias(n) for n in NUMBERS]
    texts = [F.when(valid, F.col(n)).alias(n) for n in (TEXT, LOG_SESSION_ID, BASKET_ID, USER_ID, ITEM_ID, EVENT_ID)]
    places = [F.col(name) for name in (BLOCK, ROW) if name in judged.columns]
    order = places or [F.when(valid, F.col(f"_n_{EVENT_ORDER}")).cast("bigint").alias(EVENT_ORDER)]
    as_written = [F.when(~valid, F.col(name)).alias(name) for name in (RAW, TS_TEXT)]
    attributes = [c for c in judged.columns if c.startswith((ITEM_PREFIX, USER_PREFIX))]
    return judged.select(
        URI, REASON, *as_written, EVENT_TYPE, *texts, *numbers, *order, *attributes,
        ts.alias(TS), F.to_date(ts).alias(EVENT_DATE),
    )  # fmt: skip
