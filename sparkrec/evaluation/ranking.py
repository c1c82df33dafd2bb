"""Metrics of top-K lists against the items that the users really took next.

For a user with truth T and list l_1 … l_k, hit(r) = 1 where l_r ∈ T:

    recall    Σ_r hit(r) / min(|T|, k)
    hit_rate  1 where there is a hit
    mrr       1 / rank of the first hit, 0 without one (Voorhees, TREC-8 1999)
    map       Σ_r hit(r) · precision(r) / min(|T|, k)      (Manning et al. 2008, eq. 8.8, the list cut at k)
    ndcg      Σ_r hit(r) / log2(r + 1)  /  Σ_{r ≤ min(|T|, k)} 1 / log2(r + 1)
              (Järvelin, Kekäläinen, TOIS 2002, with binary gains)

each averaged over all users with truth; one without a list counts as 0. Over the lists of these users:

    coverage  share of the catalogue that is in some list
    gini      Σ_i (2i - n - 1) x_i / (n Σ x), x_1 ≤ … ≤ x_n the number of lists that hold each of the n items
              of the catalogue: 0 where all are shown alike, towards 1 where few take all
              (Shani, Gunawardana, Recommender Systems Handbook 2011, sec. 8.3.3)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from sparkrec.errors import InvariantError
from sparkrec.evaluation.gains import COUNT, GAIN, OWNER, GainsBook
from sparkrec.evaluation.values import MetricValue
from sparkrec.log import log_event
from sparkrec.warehouse.tables import ITEM_IDX, RANK, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

ALL, SEGMENTS = "all", "segments"
_MODEL = "model"
ACCURACY = ("recall", "ndcg", "map", "mrr", "hit_rate")


@dataclass(frozen=True)
class RankedLists:
    """Lists to be judged, and the size of the catalogue that they are drawn from.

    Attributes:
        lists: ``(key, item_idx int, rank int from 1)``, at least as long as the largest cut-off; lists of keys without
            truth are not judged.
        n_items: Items that a list could have held.
    """

    lists: DataFrame
    n_items: int


def ranking_metrics(
    models: Mapping[str, RankedLists],
    truth: DataFrame,
    ks: Sequence[int],
    *,
    key: str = USER_IDX,
    gains: tuple[GainsBook, str] | None = None,
    owner: Column | None = None,
) -> dict[str, dict[str, list[MetricValue]]]:
    """Judges the lists of several models on the same truth, in the same passes.

    Args:
        models: Name → lists.
        truth: ``(key, item_idx int)``, distinct, and optionally ``segments array<string>``: the parts of the truth
            that a row belongs to, besides the whole.
        ks: Cut-offs.
        key: Name of the key column.
        gains: Where each key's share of a metric is noted, and under which hold-out.
        owner: Whose share it is, of the key; None: the key's.

    Returns:
        For each model: under ``ALL``, for each k recall, ndcg, map, mrr, hit_rate, coverage and gini, then
        ``users_without_list`` (a number); under each segment, for each k recall, ndcg, map, mrr and hit_rate by that
        part of the truth alone.

    Raises:
        InvariantError: There is no truth, or a list holds an item twice.
    """
    import pyspark.sql.functions as F

    judged = _judged(models, truth, max(ks), key).persist()
    try:
        found, shown = _accuracy(judged, key, ks), _times_shown(judged, ks)
        if gains is not None:
            book, split = gains
            whole = _by_segment(judged, key).where(F.col("segment") == ALL)
            gain = _metrics(book.k)[book.metric].cast("double").alias(GAIN)
            whose = F.col(key) if owner is None else owner
            rows = whole.select(_MODEL, whose.alias(OWNER), gain, F.lit(1).alias(COUNT))
            book.add(split, rows, max((row["n"] for row in found.values()), default=0))
    finally:
        judged.unpersist()
    return {name: _values_of(name, one.n_items, ks, found, shown) for name, one in models.items()}


def _values_of(
    name: str, n_items: int, ks: Sequence[int], found: Mapping[tuple[str, str], dict[str, Any]],
    shown: Mapping[tuple[str, int], dict[int, int]],
) -> dict[str, list[MetricValue]]:  # fmt: skip
    """What ``ranking_metrics`` gives of one model, from what ``_accuracy`` and ``_times_shown`` found."""
    whole = found.get((name, ALL))
    if whole is None:
        raise InvariantError("no user has items after the cutoff: nothing to judge by")
    if whole["doubled"]:
        raise InvariantError(f"{whole['doubled']} lists hold an item or a rank twice")
    values = {
        segment: [MetricValue(metric, k, part[f"{metric}_{k}"], part["n"]) for k in ks for metric in ACCURACY]
        for (model, segment), part in found.items()
        if model == name
    }
    for k in ks:
        coverage, gini = list_spread(shown.get((name, k), {}), n_items)
        values[ALL] += [MetricValue("coverage", k, coverage, whole["n"]), MetricValue("gini", k, gini, whole["n"])]
    values[ALL].append(MetricValue("users_without_list", None, float(whole["missing"]), whole["n"]))
    log_event("ranking_metrics", model=name, users=whole["n"], users_without_list=whole["missing"])
    return values


def list_spread(times_shown: Mapping[int, int], n_items: int) -> tuple[float, float]:
    """Coverage and Gini coefficient of lists over a catalogue.

    Args:
        times_shown: x → how many items are in x lists, x from 1.
        n_items: Size of the catalogue.

    Raises:
        InvariantError: More items are shown than the catalogue has.
    """
    covered = sum(times_shown.values())
    if covered > n_items:
        raise InvariantError(f"lists hold {covered} items of a catalogue of {n_items}")
    below, weighted = n_items - covered, 0.0  # items never shown come first
    for x in sorted(times_shown):
        m = times_shown[x]
        # Σ (2i - n - 1) over the m places i = below + 1 … below + m
        weighted += x * m * (2 * below + m - n_items)
        below += m
    total = sum(x * m for x, m in times_shown.items())
    return covered / n_items if n_items else 0.0, weighted / (n_items * total) if total else 0.0


def _judged(models: Mapping[str, RankedLists], truth: DataFrame, longest: int, key: str) -> DataFrame:
    """A row for each key with truth and each model.

    Returns:
        ``(model, key, wanted array<struct<item_idx, segments>>, places array<struct<rank, item_idx>>)``: the truth, and
        the list in order of rank, null where the model has none.
    """
    import pyspark.sql.functions as F

    place = F.struct(RANK, ITEM_IDX).alias("place")
    parts = [one.lists.select(F.lit(name).alias(_MODEL), key, place) for name, one in models.items()]
    listed = reduce(lambda some, more: some.unionByName(more), parts).where(F.col("place")[RANK] <= longest)
    lists = listed.groupBy(_MODEL, key).agg(F.sort_array(F.collect_list("place")).alias("places"))
    segments = F.col(SEGMENTS) if SEGMENTS in truth.columns else F.array().cast("array<string>")
    wanted = F.collect_list(F.struct(ITEM_IDX, segments.alias(SEGMENTS))).alias("wanted")
    each = truth.groupBy(key).agg(wanted).withColumn(_MODEL, F.explode(F.array(*[F.lit(name) for name in models])))
    return each.join(lists, [_MODEL, key], "left")


def _times_shown(judged: DataFrame, ks: Sequence[int]) -> dict[tuple[str, int], dict[int, int]]:
    """(model, k) → x → how many items are in x of the lists cut at k."""
    import pyspark.sql.functions as F

    places = judged.select(_MODEL, F.inline("places"))
    cuts = F.explode(F.filter(F.array(*[F.lit(k) for k in ks]), lambda k: k >= F.col(RANK)))
    items = places.select(_MODEL, ITEM_IDX, cuts.alias("k")).groupBy(_MODEL, "k", ITEM_IDX).agg(F.count("*").alias("x"))
    found: dict[tuple[str, int], dict[int, int]] = {}
    for row in items.groupBy(_MODEL, "k", "x").agg(F.count("*").alias("n")).collect():
        found.setdefault((row[_MODEL], row["k"]), {})[row["x"]] = row["n"]
    return found


def _by_segment(judged: DataFrame, key: str) -> DataFrame:
    """``(model, key, segment, n_truth, ranks: sorted ranks of hits, listed, doubled)``, a row for each of the three."""
    import pyspark.sql.functions as F

    names = F.array_distinct(F.flatten(F.transform("wanted", lambda w: w[SEGMENTS])))
    rows = judged.withColumn("segment", F.explode(F.concat(F.array(F.lit(ALL)), names)))
    whole = F.col("segment") == ALL
    part = F.filter("wanted", lambda w: whole | F.array_contains(w[SEGMENTS], F.col("segment")))
    rows = rows.withColumn("truth", F.transform(part, lambda w: w[ITEM_IDX]))
    hits = F.filter("places", lambda place: F.array_contains("truth", place[ITEM_IDX]))
    ranks = F.coalesce(F.transform(hits, lambda place: place[RANK]), F.array().cast("array<int>"))
    columns = F.transform("places", lambda place: place[ITEM_IDX]), F.transform("places", lambda place: place[RANK])
    doubled = reduce(or_, [F.size(F.array_distinct(column)) < F.size(column) for column in columns])
    listed = F.col("places").isNotNull()
    return rows.select(
        _MODEL, key, "segment", F.size("truth").alias("n_truth"), ranks.alias("ranks"), listed.alias("listed"),
        (listed & doubled).alias("doubled"),
    )  # fmt: skip


def _accuracy(judged: DataFrame, key: str, ks: Sequence[int]) -> dict[tuple[str, str], dict[str, Any]]:
    """By model and segment: numbers of keys, of those without a list and with a broken one, and the metrics' means."""
    import pyspark.sql.functions as F

    means = [F.avg(column).alias(f"{name}_{k}") for k in ks for name, column in _metrics(k).items()]
    missing, doubled = F.count_if(~F.col("listed")), F.count_if(F.col("doubled"))
    rows = (
        _by_segment(judged, key)
        .groupBy(_MODEL, "segment")
        .agg(F.count("*").alias("n"), missing.alias("missing"), doubled.alias("doubled"), *means)
    )
    return {(row[_MODEL], row["segment"]): row.asDict() for row in rows.collect()}


def _metrics(k: int) -> dict[str, Column]:
    """The metrics of a key at ``k``, from ``n_truth`` and ``ranks``."""
    import pyspark.sql.functions as F

    ranks = F.filter("ranks", lambda r: r <= k)
    n_hits = F.size(ranks)
    reachable = F.least(F.col("n_truth"), F.lit(k))
    precisions = F.transform(ranks, lambda r, place: (place + 1) / r)  # place: hits before this one
    gains = F.transform(ranks, lambda r: 1 / F.log2(r + 1))
    ideal, best = [], 0.0
    for rank in range(1, k + 1):
        best += 1 / math.log2(rank + 1)
        ideal.append(F.lit(best))
    return {
        "recall": n_hits / reachable,
        "ndcg": _total(gains) / F.element_at(F.array(*ideal), reachable),
        "map": _total(precisions) / reachable,
        "mrr": F.when(n_hits > 0, 1 / F.get(ranks, F.lit(0))).otherwise(0.0),
        "hit_rate": (n_hits > 0).cast("double"),
    }


def _total(values: Column) -> Column:
    import pyspark.sql.functions as F

    return F.aggregate(values, F.lit(0.0), lambda total, value: total + value)
