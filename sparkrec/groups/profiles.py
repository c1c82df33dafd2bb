"""What groups of users are like: their size, the medians of what is known of them, and what they take above others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyspark.sql import Window
from pyspark.sql import functions as F

from sparkrec.errors import UserError
from sparkrec.groups.rfm import FREQUENCY, MONETARY, RECENCY, RFM
from sparkrec.warehouse.tables import GROUP_ID, ID, IDX, ITEM_IDX, USER_IDX, VALUE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

COMMON = 50  # values of an attribute that are most common in a group: the candidates that describe it


def attribute_values(items: DataFrame, index: DataFrame, name: str) -> DataFrame:
    """``(item_idx int, value string)``: the values of an attribute; several for an item where they are an array.

    Args:
        items: ``id string`` and the attributes.
        index: ``(id string, idx int)``.
        name: The attribute.

    Raises:
        UserError: There is no such attribute.
    """
    kinds = dict(items.dtypes)
    if name not in kinds or name == ID:
        fix = f"one of {', '.join(c for c in kinds if c != ID)}"
        raise UserError("no such attribute of items", where=f"user_groups.profile={name}", fix=fix)
    column = F.col(f"`{name}`")
    each = F.explode(column) if kinds[name].startswith("array") else column
    joined = index.join(items, ID, "inner").select(F.col(IDX).alias(ITEM_IDX), each.alias(VALUE))
    text = joined.select(ITEM_IDX, F.trim(F.col(VALUE).cast("string")).alias(VALUE))
    return text.where(F.col(VALUE) != "").distinct()


def profiles(
    groups: DataFrame, values: DataFrame, taken: DataFrame, attributes: DataFrame | None, n_top: int = 5
) -> DataFrame:
    """What each group is like.

    Args:
        groups: ``(user_idx, group_id)``.
        values: Of ``rfm_values``.
        taken: ``(user_idx, item_idx)``: what users took.
        attributes: ``(item_idx, value string)``, of ``attribute_values``; None: no ``top``.
        n_top: Values of the attribute that describe a group, at most.

    Returns:
        ``(group_id int, size bigint, share double, recency_days double, frequency double, value double, top
        array<string>, summary string)``, a row for each group: medians; ``top`` are, of the values that most of the
        group's users took, those with the largest lift: their share in the group by their share of all users.
    """
    medians = [F.median(name).alias(name) for name in RFM]
    rows = groups.join(values, USER_IDX, "left").groupBy(GROUP_ID).agg(F.count("*").alias("size"), *medians)
    facts = [row.asDict() for row in rows.orderBy(GROUP_ID).collect()]
    total = sum(row["size"] for row in facts)
    tops = {} if attributes is None else _tops(groups, taken, attributes, n_top)
    described = []
    for row in facts:
        row |= {"share": row["size"] / total, "top": tops.get(row[GROUP_ID], [])}
        described.append((*(row[name] for name in (GROUP_ID, "size", "share", *RFM, "top")), _summary(row)))
    return groups.sparkSession.createDataFrame(
        described,
        f"{GROUP_ID} int, size bigint, share double, {RECENCY} double, {FREQUENCY} double, {MONETARY} double, "
        "top array<string>, summary string",
    )


def _tops(groups: DataFrame, taken: DataFrame, attributes: DataFrame, n_top: int) -> dict[int, list[str]]:
    """For each group its values, as ``value (share of the group's users)``, by lift, then users, then name."""
    pairs = taken.select(USER_IDX, ITEM_IDX).join(attributes, ITEM_IDX, "inner").select(USER_IDX, VALUE).distinct()
    counts = pairs.join(groups, USER_IDX, "inner").groupBy(GROUP_ID, VALUE).agg(F.count("*").alias("n"))
    sizes = groups.groupBy(GROUP_ID).agg(F.count("*").alias("size"))
    overall = F.sum("n").over(Window.partitionBy(VALUE))
    common = F.row_number().over(Window.partitionBy(GROUP_ID).orderBy(F.desc("n"), VALUE))
    each = counts.withColumns({"overall": overall, "place": common}).where(F.col("place") <= COMMON)
    each = each.join(F.broadcast(sizes), GROUP_ID, "inner").withColumn("share", F.col("n") / F.col("size"))
    by_lift = Window.partitionBy(GROUP_ID).orderBy(F.desc(F.col("n") / F.col("overall")), F.desc("n"), VALUE)
    best = each.withColumn("place", F.row_number().over(by_lift)).where(F.col("place") <= n_top)
    found: dict[int, list[str]] = {}
    for row in best.orderBy(GROUP_ID, "place").collect():
        found.setdefault(row[GROUP_ID], []).append(f"{row[VALUE]} ({_percent(row['share'])})")
    return found


def _summary(row: Mapping[str, Any]) -> str:
    parts = [f"{_number(row['size'], 'user')} ({_percent(row['share'])})"]
    if row[RECENCY] is not None:
        parts += [f"last seen {_number(row[RECENCY], 'day')} ago", _number(row[FREQUENCY], "event")]
    if row["top"]:
        parts.append(f"mostly: {', '.join(row['top'])}")
    return ", ".join(parts)


def _number(n: float, what: str) -> str:
    return f"{n:,.0f} {what}{'' if round(n) == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
