"""Association rules in a night: mined by Spark, asked what completes a basket, and published themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import Part, baskets_of, train_parts
from sparkrec.models.program import Program
from sparkrec.models.rules.mining import complete, load_rules, mine_rules, save_rules
from sparkrec.models.scorer import Wanted
from sparkrec.warehouse import store
from sparkrec.warehouse.cards import ModelCard, part_path
from sparkrec.warehouse.ledger import StageResult, Versions
from sparkrec.warehouse.tables import (
    ANTECEDENT,
    CONFIDENCE,
    CONSEQUENT,
    COPURCHASE,
    ID,
    IDX,
    INTERACTIONS,
    ITEM_INDEX,
    LEVERAGE,
    LIFT,
    MODEL_VERSION,
    N_BASKETS,
    RULES,
    RUN_DATE,
    SUPPORT,
    USER_INDEX,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def train(night: Night, inputs: Inputs) -> StageResult:
    """Association rules of the baskets."""

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> str:
        mined = mine_rules(baskets_of(night, inputs, part), night.config.rules)
        save_rules(mined, path, {**meta, **mined.meta})
        found = ", ".join(f"{name} {value}" for name, value in mined.meta.items())
        return f"{mined.rules.count()} rules ({found})"

    return train_parts(night, inputs, "rules", train_part)


def completed(night: Night, card: ModelCard, part: str, baskets: DataFrame, wanted: Wanted) -> DataFrame:
    """What the part's rules add to baskets; see ``mining.complete``."""
    rules = load_rules(night.spark, part_path(night.warehouse, card.model, night.run_date, part)).rules
    if len(wanted.excluded):
        hidden = night.spark.createDataFrame([(int(i),) for i in wanted.excluded], f"{CONSEQUENT} int")
        rules = rules.join(F.broadcast(hidden), CONSEQUENT, "left_anti")
    return complete(baskets, rules, key=wanted.key, k=wanted.k, seen=wanted.seen)


def publish(night: Night, inputs: Inputs, card: ModelCard) -> Versions:
    """The rules themselves, into ``rules``."""
    rows = _named_rules(night, inputs, card)
    return {RULES.name: store.replace_night(rows, night.warehouse, RULES, night.run_date)}


def _named_rules(night: Night, inputs: Inputs, card: ModelCard) -> DataFrame:
    """The rules of the served part in the columns of ``tables.RULES``, items by their ids."""
    path = part_path(night.warehouse, card.model, night.run_date, card.served_part)
    index = inputs.read(ITEM_INDEX)
    names = F.broadcast(index.select(F.col(IDX).alias(CONSEQUENT), F.col(ID).alias("_consequent")))
    rules = load_rules(night.spark, path).rules.join(names, CONSEQUENT, "inner")
    each = rules.select("*", F.posexplode(ANTECEDENT).alias("_place", IDX)).join(F.broadcast(index), IDX, "inner")
    measures = [SUPPORT, CONFIDENCE, LIFT, LEVERAGE, N_BASKETS]
    ordered = F.array_sort(F.collect_list(F.struct("_place", ID)))
    grouped = each.groupBy(ANTECEDENT, CONSEQUENT, "_consequent", *measures).agg(ordered.alias("_items"))
    return grouped.select(
        F.lit(night.run_date).alias(RUN_DATE),
        F.col(f"_items.{ID}").alias(ANTECEDENT),
        F.col("_consequent").alias(CONSEQUENT),
        *measures,
        F.lit(card.model_version).alias(MODEL_VERSION),
    )


PROGRAM = Program(
    train=train,
    reads=(INTERACTIONS, COPURCHASE, USER_INDEX, ITEM_INDEX),
    depends=lambda night: (night.fmt.purchase_events,),
    completed=completed,
    publish=publish,
)
