"""Whether what stands together in a log's sessions or baskets says more of what comes next than what is popular."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sparkrec.look.columns import share

if TYPE_CHECKING:
    import polars as pl

K = 20
TRAINED = 0.8  # of the groups, in order of time; the others ask
LEAST = 300  # questions, or nothing is told


class Recalls(NamedTuple):
    """Recall@20 of the next item."""

    together: float
    popular: float


def recalls(groups: pl.DataFrame) -> Recalls | None:
    """Recall@20 of pair counts and of popularity, for the next item after another in the last fifth of the groups.

    An item's list are the items that stood behind it the most often, ties as they come; popularity's the items that
    occur the most often.

    Args:
        groups: ``group``, ``item``, ``ts``: the events of sessions or baskets.

    Returns:
        Both; None where there is too little to ask.
    """
    import polars as pl

    ordered = groups.sort("ts", maintain_order=True).with_columns(begin=pl.col("ts").min().over("group"))
    cut = ordered.select(pl.col("begin").unique().sort()).to_series()
    if cut.len() < LEAST:
        return None
    since = cut[int(TRAINED * cut.len())]
    pairs = ordered.with_columns(after=pl.col("item").shift(-1).over("group")).drop_nulls("after")
    pairs = pairs.filter(pl.col("item") != pl.col("after"))
    known, asked = pairs.filter(pl.col("begin") < since), pairs.filter(pl.col("begin") >= since)
    if known.height == 0 or asked.height < LEAST:
        return None
    counted = (
        known.group_by("item", "after", maintain_order=True).len().sort("len", descending=True, maintain_order=True)
    )
    listed = counted.group_by("item", maintain_order=True).head(K).select("item", "after", hit=pl.lit(value=True))
    popular = ordered.filter(pl.col("begin") < since)["item"].value_counts(sort=True).head(K)["item"]
    hits = asked.join(listed, on=["item", "after"], how="left")["hit"].count()
    return Recalls(hits / asked.height, share(asked["after"].is_in(popular.implode())))
