"""Categorical features of items and users: values, their codes, and the coded columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as F

from sparkrec.log import warn_event
from sparkrec.prepare.numbering import POSITION, numbered
from sparkrec.settings.formats import Feature
from sparkrec.warehouse.tables import FEATURE, ID, IDX, TYPE_FEATURE, VALUE

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

UNKNOWN = 0


def feature_values(attributes: DataFrame, features: Sequence[Feature], prefix: str) -> DataFrame:
    """The values of each feature of each id; an id without a value has no row.

    ``categorical``: the value without spaces around it. ``multi``: the first ``max_values`` different ones between
    the separators. ``bucket``: b<k> for a number in [2^k, 2^(k+1)), -b<k> for one below 0, and zero.

    Args:
        attributes: ``id`` string and the attributes as columns, one row for each id.
        features: What to take. One without a column is unknown for all ids, which is logged as a warning: attribute
            files are optional.
        prefix: ``item`` or ``user``.

    Returns:
        ``id`` string, ``feature`` string (``<prefix>.<name>``), ``value`` string.
    """
    there = [f for f in features if f.name in attributes.columns]
    for feature in features:
        if feature not in there:
            warn_event("feature_without_column", feature=f"{prefix}.{feature.name}")
    if not there:
        nothing = F.lit(None).cast("string")
        return attributes.select(ID, nothing.alias(FEATURE), nothing.alias(VALUE)).where(F.lit(False))
    pairs = [F.struct(F.lit(f"{prefix}.{f.name}").alias(FEATURE), _values(f).alias("many")) for f in there]
    each = attributes.select(ID, F.explode(F.array(*pairs)).alias("of"))
    return each.select(ID, f"of.{FEATURE}", F.explode("of.many").alias(VALUE))


def coded_types(session_events: Sequence[str]) -> tuple[str, ...]:
    """The types of events that get a code: those that make sessions, unless there is but one to tell apart."""
    types = tuple(sorted(set(session_events)))
    return types if len(types) > 1 else ()


def type_values(spark: SparkSession, types: Sequence[str]) -> DataFrame:
    """The types of events as values of a feature, in the columns of :func:`feature_values`; the id is null."""
    rows = [(None, TYPE_FEATURE, name) for name in types]
    return spark.createDataFrame(rows, f"{ID} string, {FEATURE} string, {VALUE} string")


def new_codes(values: DataFrame, feature_index: DataFrame | None) -> tuple[DataFrame, int]:
    """Codes for the values that the index does not have yet.

    Within each feature they follow the order of the values and go on after the largest of the index, from 1.

    Args:
        values: ``feature`` string, ``value`` string; may repeat.
        feature_index: ``feature``, ``value``, ``idx`` int, or None for the first night.

    Returns:
        The rows to append: ``feature``, ``value``, ``idx`` int, and how many they are.
    """
    fresh = values.select(FEATURE, VALUE).where(F.col(VALUE).isNotNull()).distinct()
    if feature_index is not None:
        fresh = fresh.join(feature_index.select(FEATURE, VALUE), on=[FEATURE, VALUE], how="left_anti")
    rows, count = numbered(fresh, FEATURE, VALUE)
    first = F.min(POSITION).over(Window.partitionBy(FEATURE))
    rows = rows.withColumn("place", F.col(POSITION) - first + 1)
    if feature_index is None:
        return rows.select(FEATURE, VALUE, F.col("place").cast("int").alias(IDX)), count
    largest = feature_index.groupBy(FEATURE).agg(F.max(IDX).alias("largest"))
    coded = rows.join(F.broadcast(largest), on=FEATURE, how="left")
    code = F.coalesce(F.col("largest"), F.lit(UNKNOWN)) + F.col("place")
    return coded.select(FEATURE, VALUE, code.cast("int").alias(IDX)), count


def encode_features(
    values: DataFrame,
    feature_index: DataFrame,
    index: DataFrame,
    features: Sequence[Feature],
    prefix: str,
    idx_column: str,
) -> DataFrame:
    """The codes of each feature for every id of the index.

    Args:
        values: As :func:`feature_values` gives them; those of ids outside of the index are left out.
        feature_index: ``feature``, ``value``, ``idx`` int. It must have every value of an indexed id: computing one
            that it lacks fails.
        index: ``id`` string, ``idx`` int.
        features: The features, a column each, named like them.
        prefix: ``item`` or ``user``.
        idx_column: Name of the number's column, ``item_idx`` or ``user_idx``.

    Returns:
        ``idx_column`` int, then one ``array<int>`` for each feature: its codes in ascending order, [0] for unknown.
    """
    ids = index.select(ID, F.col(IDX).alias(idx_column))
    if not features:
        return ids.select(idx_column)
    lacking = F.raise_error(F.concat(F.lit("value not in feature_index: "), FEATURE, F.lit(" "), VALUE)).cast("int")
    known = values.join(ids, on=ID, how="inner")
    coded = known.join(feature_index, on=[FEATURE, VALUE], how="left").withColumn(IDX, F.coalesce(IDX, lacking))
    codes = [
        F.sort_array(F.collect_set(F.when(F.col(FEATURE) == f"{prefix}.{f.name}", F.col(IDX)))).alias(f.name)
        for f in features
    ]
    rows = ids.select(idx_column).join(coded.groupBy(idx_column).agg(*codes), on=idx_column, how="left")
    unknown = F.array(F.lit(UNKNOWN))
    return rows.select(
        idx_column,
        *(F.when(F.size(_column(f.name)) > 0, _column(f.name)).otherwise(unknown).alias(f.name) for f in features),
    )


def _values(feature: Feature) -> Column:
    """The feature's values, array<string> without nulls, repeats and empty ones."""
    column = _column(feature.name)
    if feature.kind == "bucket":
        many = F.array(_bucket(column.try_cast("double")))
    elif feature.kind == "multi":
        parts = F.split(column.cast("string"), re.escape(feature.separator))
        many = F.slice(_clean(parts), 1, feature.max_values)
    else:
        many = F.array(column.cast("string"))
    return _clean(many)


def _clean(many: Column) -> Column:
    trimmed = F.transform(many, lambda v: F.trim(v))
    return F.array_distinct(F.filter(trimmed, lambda v: v.isNotNull() & (v != "")))


def _bucket(number: Column) -> Column:
    size = F.abs(number)
    guess = F.floor(F.log2(size))  # a logarithm may miss the power by a rounding error
    two = F.lit(2.0)
    k = F.when(F.pow(two, guess + 1) <= size, guess + 1).when(F.pow(two, guess) > size, guess - 1).otherwise(guess)
    name = F.concat(F.when(number < 0, F.lit("-b")).otherwise(F.lit("b")), k.cast("string"))
    countable = number.isNotNull() & ~F.isnan(number) & (size < F.lit(float("inf")))
    return F.when(countable & (number == 0), F.lit("zero")).when(countable, name)


def _column(name: str) -> Column:
    return F.col("`" + name.replace("`", "``") + "`")
