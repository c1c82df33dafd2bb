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
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparkrec.errors import InvariantError
from sparkrec.evaluation.values import MetricValue
from sparkrec.log import log_event
from sparkrec.tables import ITEM_IDX, RANK, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

ALL, SEGMENTS = "all", "segments"
ACCURACY = ("recall", "ndcg", "map", "mrr", "hit_rate")


def ranking_metrics(
    lists: DataFrame, truth: DataFrame, ks: Sequence[int], n_items: int, *, key: str = USER_IDX
) -> dict[str, list[MetricValue]]:
    """Judges lists.

    Args:
        lists: ``(key, item_idx int, rank int from 1)``, at least as long as the largest of ``ks``; lists of keys
            without truth are not judged.
        truth: ``(key, item_idx int)``, distinct, and optionally ``segments array<string>``: the parts of the truth
            that a row belongs to, besides the whole.
        ks: Cut-offs.
        n_items: Size of the catalogue.
        key: Name of the key column.

    Returns:
        Under ``ALL``, for each k recall, ndcg, map, mrr, hit_rate, coverage and gini, then ``users_without_list`` (a
        number). Under each segment, for each k recall, ndcg, map, mrr and hit_rate by that part of the truth alone.

    Raises:
        InvariantError: There is no truth, or a list holds an item twice.
    """
    import pyspark.sql.functions as F

    judged = lists.select(key, ITEM_IDX, RANK).where(f"{RANK} <= {max(ks)}")
    judged = judged.join(truth.select(key).distinct(), key, "left_semi").persist()
    try:
        found = _accuracy(_per_key(judged, truth, key), ks)
        if ALL not in found:
            raise InvariantError("no user has items after the cutoff: nothing to judge by")
        row = found[ALL]
        if row["doubled"]:
            raise InvariantError(f"{row['doubled']} lists hold an item or a rank twice")
        values = {
            segment: [MetricValue(name, k, part[f"{name}_{k}"], part["n"]) for k in ks for name in ACCURACY]
            for segment, part in found.items()
        }
        for k in ks:
            covered, gini = list_spread(judged.where(F.col(RANK) <= k), n_items)
            values[ALL] += [MetricValue("coverage", k, covered, row["n"]), MetricValue("gini", k, gini, row["n"])]
    finally:
        judged.unpersist()
    log_event("ranking_metrics", users=row["n"], users_without_list=row["missing"])
    values[ALL].append(MetricValue("users_without_list", None, float(row["missing"]), row["n"]))
    return values


def list_spread(lists: DataFrame, n_items: int) -> tuple[float, float]:
    """Coverage and Gini coefficient of lists ``(item_idx, …)`` over a catalogue of ``n_items``."""
    import pyspark.sql.functions as F

    shown = lists.groupBy(ITEM_IDX).agg(F.count("*").alias("x"))
    counts = {row["x"]: row["n"] for row in shown.groupBy("x").agg(F.count("*").alias("n")).collect()}
    covered = sum(counts.values())
    if covered > n_items:
        raise InvariantError(f"lists hold {covered} items of a catalogue of {n_items}")
    below, weighted = n_items - covered, 0.0  # items never shown come first
    for x in sorted(counts):
        m = counts[x]
        # Σ (2i - n - 1) over the m places i = below + 1 … below + m
        weighted += x * m * (2 * below + m - n_items)
        below += m
    total = sum(x * m for x, m in counts.items())
    return covered / n_items if n_items else 0.0, weighted / (n_items * total) if total else 0.0


def _per_key(judged: DataFrame, truth: DataFrame, key: str) -> DataFrame:
    """``(segment, n_truth, ranks: sorted ranks of the hits, listed, doubled)`` for each key and segment with truth."""
    import pyspark.sql.functions as F

    whole = F.array(F.lit(ALL))
    segments = F.concat(whole, F.col(SEGMENTS)) if SEGMENTS in truth.columns else whole
    wanted = truth.select(key, ITEM_IDX, F.explode(segments).alias("segment"))
    taken = judged.join(wanted, [key, ITEM_IDX], "inner")
    hits = taken.groupBy(key, "segment").agg(F.array_sort(F.collect_list(RANK)).alias("ranks"))
    doubled = (F.count_distinct(ITEM_IDX) < F.count("*")) | (F.count_distinct(RANK) < F.count("*"))
    state = judged.groupBy(key).agg(F.lit(True).alias("listed"), doubled.alias("doubled"))
    lengths = wanted.groupBy(key, "segment").agg(F.count("*").cast("int").alias("n_truth"))
    per_key = lengths.join(hits, [key, "segment"], "left").join(state, key, "left")
    return per_key.withColumn("ranks", F.coalesce("ranks", F.array().cast("array<int>")))


def _accuracy(per_key: DataFrame, ks: Sequence[int]) -> dict[str, dict[str, Any]]:
    """By segment: numbers of keys, of those without a list and with a broken one, and the means of the metrics."""
    import pyspark.sql.functions as F

    means = [F.avg(column).alias(f"{name}_{k}") for k in ks for name, column in _metrics(k).items()]
    missing, doubled = F.count_if(F.col("listed").isNull()), F.count_if(F.col("doubled"))
    rows = per_key.groupBy("segment").agg(
        F.count("*").alias("n"), missing.alias("missing"), doubled.alias("doubled"), *means
    )
    return {row["segment"]: row.asDict() for row in rows.collect()}


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
