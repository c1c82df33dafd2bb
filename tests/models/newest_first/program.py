"""What a night does with it: score(i) = 2^(-age of the item's first event / half-life)."""

from pyspark.sql import functions as F

from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import before, train_parts
from sparkrec.models.program import Program
from sparkrec.models.scorer import DenseScorer
from sparkrec.retrieval.topk import VECTOR, item_matrix
from sparkrec.warehouse.cards import part_path
from sparkrec.warehouse.tables import IDX, INTERACTIONS, ITEM_IDX, ITEM_INDEX, TS, USER_IDX, USER_INDEX


def train(night: Night, inputs: Inputs):
    def train_part(part, path, meta):
        first = before(inputs.read(INTERACTIONS), part).groupBy(ITEM_IDX).agg(F.min(TS).alias(TS))
        age = (F.lit(part.before.timestamp()) - F.unix_timestamp(TS)) / 86_400
        score = F.pow(F.lit(2.0), -age / night.config.newest.half_life_days)
        vectors = first.select(F.col(ITEM_IDX).alias(IDX), F.array(score.cast("float")).alias(VECTOR))
        vectors.coalesce(1).write.mode("overwrite").parquet(f"{path}/items")
        return ""

    return train_parts(night, inputs, "newest", train_part)


def scorer(night: Night, inputs: Inputs, card, part, as_of):
    items = night.spark.read.parquet(f"{part_path(night.warehouse, card.model, night.run_date, part)}/items")
    users = inputs.read(USER_INDEX).select(F.col(IDX).alias(USER_IDX), F.array(F.lit(1.0).cast("float")).alias(VECTOR))
    return DenseScorer(users, item_matrix(items, card.n_items))


PROGRAM = Program(train=train, reads=(INTERACTIONS, USER_INDEX, ITEM_INDEX), scorer=scorer)
