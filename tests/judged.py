"""A night's lists for users, as they are published and as they would be judged: from one part, at one time."""

import polars as pl
from pyspark.sql import functions as F

from sparkrec.models.night import Inputs
from sparkrec.models.scorer import Wanted
from sparkrec.models.scorers import seen_pairs, user_scorer
from sparkrec.pipeline.nightly import night_of
from sparkrec.retrieval.topk import SEEN
from sparkrec.settings.config import load_config
from sparkrec.warehouse.cards import read_card


def both_ways(spark, place, model):
    """``(user_idx, rank, item_idx)`` of the model's own published rows, and of those that would be judged."""
    night = night_of(spark, load_config(None, place.settings()), place.last)
    inputs, card = Inputs(night, place.versions()), read_card(night.warehouse, model, night.run_date)
    taken = seen_pairs(night, inputs, night.as_of).groupBy("user_idx").agg(F.collect_list("item_idx").alias(SEEN))
    scorer = user_scorer(night, inputs, card, card.served_part, night.as_of)
    wanted = Wanted(("user_idx",), night.config.topk.k, night.config.topk)
    judged = pl.from_pandas(scorer.best(taken, wanted).select("user_idx", "rank", "item_idx").toPandas())
    rows = place.table(f"topk_{model}").filter(pl.col("source") == "model")
    for what in ("user", "item"):
        numbers = place.table(f"{what}_index").select(
            pl.col("id").alias(f"{what}_id"), pl.col("idx").alias(f"{what}_idx")
        )
        rows = rows.join(numbers, f"{what}_id")
    published = rows.select("user_idx", "rank", "item_idx").cast(pl.Int64)
    return published.sort("user_idx", "rank").rows(), judged.cast(pl.Int64).sort("user_idx", "rank").rows()
