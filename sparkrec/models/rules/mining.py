"""Association rules of baskets: who holds A also holds the item c.

With n baskets, and n(S) of them that hold all items of S:

    support(A → c)     n(A ∪ c) / n                                   (Agrawal, Imielinski and Swami, SIGMOD 1993)
    confidence(A → c)  n(A ∪ c) / n(A)                                (the same)
    lift(A → c)        confidence(A → c) / (n(c) / n)                 (Brin, Motwani, Ullman and Tsur, "Dynamic Itemset
                       Counting and Implication Rules for Market Basket Data", SIGMOD 1997, there called interest)
    leverage(A → c)    support(A → c) - n(A) / n · n(c) / n           (Piatetsky-Shapiro, "Discovery, Analysis, and
                       Presentation of Strong Rules", 1991)

The frequent sets come from ``itemsets``. A basket is completed by the rules whose antecedent it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparkrec.errors import InvariantError, UserError
from sparkrec.log import log_event
from sparkrec.models.rules.itemsets import N_BASKETS, itemsets, prepared, refuse_too_many
from sparkrec.models.rules.settings import RulesConfig
from sparkrec.storage import files
from sparkrec.warehouse.tables import (
    ANTECEDENT,
    CONFIDENCE,
    CONSEQUENT,
    ITEM_IDX,
    ITEMS,
    LEVERAGE,
    LIFT,
    RANK,
    SCORE,
    SUPPORT,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

RULES, MODEL_FILE = "rules", "model.json"
_SCHEMA = (
    f"{ANTECEDENT} array<int>, {CONSEQUENT} int, {SUPPORT} double, {CONFIDENCE} double, {LIFT} double, "
    f"{LEVERAGE} double, {N_BASKETS} bigint"
)


_N_ANTECEDENT, _N_CONSEQUENT = "n_antecedent", "n_consequent"


@dataclass(frozen=True)
class RulesModel:
    """Association rules.

    Attributes:
        rules: ``(antecedent array<int>, consequent int, support double, confidence double, lift double, leverage
            double, n_baskets bigint)``; the antecedent ascending, ``n_baskets`` those that hold both sides.
        meta: Of ``mine_rules``: what was read, left out and found, by number. Of ``load_rules``: what ``save_rules``
            was given.
    """

    rules: DataFrame
    meta: dict[str, Any] = field(default_factory=dict)


def mine_rules(baskets: DataFrame, config: RulesConfig) -> RulesModel:
    """Finds the rules with one item as the consequent.

    The frequent sets are held by the executors and nowhere else: save the rules at once.

    Args:
        baskets: ``(items array<int>)``, for example ``tables.COPURCHASE``; read three times. The items of a basket are
            distinct and not null.
        config: What a rule must reach, and how long baskets and sets are.

    Raises:
        UserError: There are no baskets, or the settings would make too many candidates. Nothing was mined.
    """
    ready = prepared(baskets, config)
    try:
        refuse_too_many(ready, config)
        sets = itemsets(ready, config.max_itemset, config.miner).localCheckpoint()
        singles = _singles(ready.rows).localCheckpoint()
    finally:
        ready.rows.unpersist()
    sizes = _sizes(sets)
    meta = {"baskets": ready.n_baskets, "minimum": ready.minimum, "items": len(ready.frequent), **ready.left_out}
    meta |= {f"sets_of_{size}": n for size, n in sizes.items()}
    log_event("rules", miner=config.miner, **meta)
    return RulesModel(_rules(sets, singles, ready.n_baskets, config), meta)


def save_rules(model: RulesModel, path: str, meta: dict[str, Any]) -> None:
    """Writes the rules as Parquet and then ``model.json``, which makes the folder a model."""
    model.rules.write.mode("overwrite").parquet(files.join(path, RULES))
    files.write_json(files.join(path, MODEL_FILE), meta)


def load_rules(spark: SparkSession, path: str) -> RulesModel:
    """Reads what ``save_rules`` wrote.

    Raises:
        UserError: There is no model.
    """
    if not files.exists(files.join(path, MODEL_FILE)):
        raise UserError("no rules", where=path, fix="run train_rules first")
    rules = spark.read.schema(_SCHEMA).parquet(files.join(path, RULES))
    return RulesModel(rules, files.read_json(files.join(path, MODEL_FILE)))


def complete(
    baskets: DataFrame, rules: DataFrame, *, key: str | Sequence[str], k: int, seen: DataFrame | None = None
) -> DataFrame:
    """The ``k`` items that the rules add to each basket.

    The rules that apply are those whose antecedent is in the basket. Of an item the rule with the largest confidence
    counts, of equal ones that with the largest lift; items are ordered by these two, then by number. Items of the
    basket are left out. A basket without an applicable rule gets no row: ``fallback.count_lists`` counts them.

    Args:
        baskets: The key columns, each key once, and ``items array<int>``.
        rules: ``RulesModel.rules``.
        key: The column or columns that identify a basket.
        k: Length of the lists.
        seen: ``(key columns or some of them, item_idx)``: further pairs to leave out.

    Returns:
        ``(key…, item_idx int, rank int, score float)``, ranks from 1; the score is the confidence.
    """
    import pyspark.sql.functions as F
    from pyspark.sql import Window

    keys = [key] if isinstance(key, str) else list(key)
    whole = baskets.select(*keys, F.array_distinct(ITEMS).alias(ITEMS))
    held = whole.select(*keys, ITEMS, F.explode(ITEMS).alias(ITEM_IDX))
    applicable = held.join(_by_rarest_item(rules), ITEM_IDX, "inner")
    applicable = applicable.where(F.size(F.array_except(ANTECEDENT, ITEMS)) == 0)
    adds = applicable.select(*keys, ITEMS, F.inline("adds")).where(~F.array_contains(ITEMS, F.col(CONSEQUENT)))
    best = F.max(F.struct(CONFIDENCE, LIFT)).alias("best")
    added = adds.groupBy(*keys, F.col(CONSEQUENT).alias(ITEM_IDX)).agg(best)
    if seen is not None:
        on = [name for name in keys if name in seen.columns]
        if not on:
            raise InvariantError(f"seen items need a column of {keys}: {seen.columns}")
        added = added.join(seen.select(*on, ITEM_IDX), [*on, ITEM_IDX], "left_anti")
    order = Window.partitionBy(*keys).orderBy(F.desc("best.confidence"), F.desc("best.lift"), ITEM_IDX)
    ranked = added.withColumn(RANK, F.row_number().over(order)).where(F.col(RANK) <= k)
    return ranked.select(*keys, ITEM_IDX, RANK, F.col(f"best.{CONFIDENCE}").cast("float").alias(SCORE))


def _by_rarest_item(rules: DataFrame) -> DataFrame:
    """``(item_idx, antecedent, adds)``: each antecedent once, with its item that is in the fewest of them.

    So a basket meets few antecedents that it does not hold. ``adds`` are the rules: consequent, confidence, lift.
    """
    import pyspark.sql.functions as F

    adds = F.collect_list(F.struct(CONSEQUENT, CONFIDENCE, LIFT)).alias("adds")
    whole = rules.groupBy(ANTECEDENT).agg(adds)
    each = whole.select(ANTECEDENT, F.explode(ANTECEDENT).alias(ITEM_IDX))
    counted = each.join(each.groupBy(ITEM_IDX).agg(F.count("*").alias("n")), ITEM_IDX, "inner")
    rarest = counted.groupBy(ANTECEDENT).agg(F.min(F.struct("n", ITEM_IDX))[ITEM_IDX].alias(ITEM_IDX))
    return rarest.join(whole, ANTECEDENT, "inner")


def _singles(rows: DataFrame) -> DataFrame:
    """``(items array<int> of one, n_baskets)`` of the baskets as they are mined."""
    import pyspark.sql.functions as F

    counts = rows.select(F.explode(ITEMS).alias(CONSEQUENT)).groupBy(CONSEQUENT).agg(F.count("*").alias(N_BASKETS))
    return counts.select(F.array(CONSEQUENT).alias(ITEMS), N_BASKETS)


def _sizes(sets: DataFrame) -> dict[int, int]:
    """How many sets there are of each size."""
    import pyspark.sql.functions as F

    counts = sets.groupBy(F.size(ITEMS).alias("size")).agg(F.count("*").alias("n"))
    return {row["size"]: row["n"] for row in counts.orderBy("size").collect()}


def _rules(sets: DataFrame, singles: DataFrame, n_baskets: int, config: RulesConfig) -> DataFrame:
    import pyspark.sql.functions as F

    each = sets.select(ITEMS, N_BASKETS, F.explode(ITEMS).alias(CONSEQUENT))
    candidates = each.select(F.array_remove(ITEMS, F.col(CONSEQUENT)).alias(ANTECEDENT), CONSEQUENT, N_BASKETS)
    left = sets.unionByName(singles).toDF(ANTECEDENT, _N_ANTECEDENT)
    right = singles.select(F.get(ITEMS, F.lit(0)).alias(CONSEQUENT), F.col(N_BASKETS).alias(_N_CONSEQUENT))
    counted = candidates.join(left, ANTECEDENT, "inner").join(F.broadcast(right), CONSEQUENT, "inner")
    both, of_left, of_right = F.col(N_BASKETS), F.col(_N_ANTECEDENT), F.col(_N_CONSEQUENT)
    n = F.lit(float(n_baskets))
    confidence = both / of_left
    measured = counted.select(
        ANTECEDENT,
        CONSEQUENT,
        (both / n).alias(SUPPORT),
        confidence.alias(CONFIDENCE),
        (confidence / (of_right / n)).alias(LIFT),
        (both / n - of_left / n * (of_right / n)).alias(LEVERAGE),
        N_BASKETS,
    )
    return measured.where((F.col(CONFIDENCE) >= config.min_confidence) & (F.col(LIFT) >= config.min_lift))
