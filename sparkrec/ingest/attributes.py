"""Attributes of items and users: from the rows of the log, and from the files beside it. Pure transforms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.ingest.parse import REASON, attribute
from sparkrec.ingest.raw import FAULT, RAW, URI
from sparkrec.ingest.values import PLAIN, Notation, pick_id
from sparkrec.settings.formats import AttributeFile
from sparkrec.warehouse.tables import ID, TS, Column, Table

UPDATED_AT, KNOWN = "updated_at", "_known"


def attribute_table(table: Table, columns: Mapping[str, str]) -> Table:
    """The ``items`` or ``users`` table with the attribute columns of a format."""
    from dataclasses import replace

    own = tuple(Column(name, type_, "as the log format declares", nullable=True) for name, type_ in columns.items())
    updated = Column(UPDATED_AT, "timestamp", "time of the latest event with an attribute, UTC", nullable=True)
    return replace(table, columns=table.columns + own + (updated,))


def latest(rows: DataFrame, id_column: str, prefix: str, columns: Mapping[str, str]) -> DataFrame:
    """One row for each id: of each attribute the latest value that is not null; of several at once the largest.

    Args:
        rows: Valid rows with ``id_column``, ``ts`` and ``<prefix><attribute>``.
        id_column: ``item_id`` or ``user_id``.
        prefix: Prefix of the attributes' columns.
        columns: All attribute columns of the table, with types; those that the rows lack become null.

    Returns:
        ``id``, the attributes and ``updated_at`` (null where the log has no attributes).
    """
    present = [name for name in columns if prefix + name in rows.columns]
    # Distinct values first: an aggregation by hash that leaves little to sort.
    distinct = rows.where(F.col(id_column).isNotNull()).groupBy(id_column, *[prefix + n for n in present])
    values = distinct.agg(F.max(TS).alias(TS))
    newest = [
        F.max(F.when(F.col(prefix + n).isNotNull(), F.struct(TS, prefix + n))).alias(n) for n in present
    ]  # fmt: skip
    grouped = values.groupBy(F.col(id_column).alias(ID)).agg(F.max(TS).alias(UPDATED_AT), *newest)
    attributes = [
        (F.col(n)[prefix + n] if n in present else F.lit(None)).cast(type_).alias(n) for n, type_ in columns.items()
    ]
    updated = F.col(UPDATED_AT) if present else F.lit(None).cast("timestamp").alias(UPDATED_AT)
    return grouped.select(ID, *attributes, updated)


def changes(existing: DataFrame, incoming: DataFrame, columns: Sequence[str], incoming_wins: bool = False) -> DataFrame:
    """The rows to write: new ids, and those whose attributes change.

    An incoming value counts when it is not null and not older than the row; an older one only fills a gap.

    Args:
        existing: The table.
        incoming: ``id``, attributes, ``updated_at``; ids unique.
        columns: Names of the attributes.
        incoming_wins: Let incoming values count whatever their time (attribute files).

    Returns:
        The columns to write, and ``_known``: whether the table has the id.
    """
    columns = [c for c in columns if c in incoming.columns]
    known = existing.select(F.col(ID), *[F.col(c) for c in (*columns, UPDATED_AT) if c in existing.columns])
    for missing in set(columns) - set(known.columns):
        known = known.withColumn(missing, F.lit(None).cast(dict(incoming.dtypes)[missing]))
    joined = incoming.alias("new").join(known.withColumn(KNOWN, F.lit(True)).alias("old"), ID, how="left")
    not_older = F.coalesce(F.col(f"new.{UPDATED_AT}") >= F.col(f"old.{UPDATED_AT}"), F.lit(True))
    wins = F.lit(incoming_wins) | not_older

    merged = {}
    for name in columns:
        new, old = F.col(f"new.{name}"), F.col(f"old.{name}")
        merged[name] = F.when(wins, F.coalesce(new, old)).otherwise(F.coalesce(old, new))
    merged[UPDATED_AT] = F.greatest(f"new.{UPDATED_AT}", f"old.{UPDATED_AT}")
    changed = F.col(KNOWN).isNull()
    for name, value in merged.items():
        changed = changed | ~value.eqNullSafe(F.col(f"old.{name}"))
    values = [value.alias(name) for name, value in merged.items()]
    return joined.where(changed).select(ID, *values, F.col(KNOWN).isNotNull().alias(KNOWN))


def parse_attribute_file(
    raw: DataFrame,
    declared: AttributeFile,
    nulls: Sequence[str],
    id_nulls: Sequence[str] = (),
    written: Notation = PLAIN,
) -> DataFrame:
    """Raw rows of an attribute file → ``_uri``, ``id``, attributes, ``reason`` and ``_raw`` (null for a valid row).

    Args:
        raw: The rows.
        declared: Its declaration.
        nulls: Texts that stand for a missing value.
        id_nulls: Texts that stand for one besides, of an id.
        written: How numbers are written.
    """
    id_ = pick_id(raw, declared.id, (*nulls, *id_nulls))
    reason = F.coalesce(F.col(FAULT), F.when(id_.isNull(), "missing id"))
    values = [attribute(raw, a, nulls, written).alias(a.name) for a in declared.attributes]
    return raw.select(
        URI, reason.alias(REASON), F.when(reason.isNotNull(), F.col(RAW)).alias(RAW), id_.alias(ID), *values
    )


def one_per_id(rows: DataFrame, names: Sequence[str]) -> DataFrame:
    """Valid rows of an attribute file, one for each id: of several values the largest that is not null."""
    valid = rows.where(F.col(REASON).isNull())
    merged = valid.groupBy(ID).agg(*[F.max(n).alias(n) for n in names])
    return merged.withColumn(UPDATED_AT, F.lit(None).cast("timestamp"))
