"""What predicted ratings are learnt from, made on Spark: rated pairs, and the words of their reviews, numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from sparkrec.models.ratings.reviews import POSITION, WORD
from sparkrec.models.ratings.settings import RatingsConfig
from sparkrec.prepare.cut import utc
from sparkrec.prepare.weights import counted
from sparkrec.warehouse.tables import ID, IDX, ITEM_ID, ITEM_IDX, RATING, TEXT, TS, USER_ID, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# Snapshots of rated pairs and of words: whole users to a file.
GROUP = USER_IDX
ORDER, WORD_ORDER = (USER_IDX, ITEM_IDX), (USER_IDX, ITEM_IDX, POSITION)


def rated(matrix: DataFrame) -> DataFrame:
    """(user_idx int, item_idx int, rating float) of the pairs of ``tables.USER_ITEM`` that have a rating."""
    return matrix.where(F.col(RATING).isNotNull()).select(USER_IDX, ITEM_IDX, RATING)


def review_words(
    events: DataFrame,
    users: DataFrame,
    items: DataFrame,
    pairs: DataFrame,
    event_weights: Mapping[str, float],
    as_of: datetime,
    config: RatingsConfig,
) -> DataFrame:
    """The first words of the last review of each pair: lower-case runs of letters, digits and ``_``.

    Args:
        events: Table ``events``.
        users: Table ``user_index``.
        items: Table ``item_index``.
        pairs: ``(user_idx, item_idx, …)``, distinct: the only ones whose reviews may be read.
        event_weights: Events of a type without a weight do not count.
        as_of: What came from then on is not seen.
        config: How many words.

    Returns:
        user_idx int, item_idx int, position int (from 0), term string.
    """
    there = F.col(TEXT).isNotNull() & F.col(USER_ID).isNotNull() & (F.col(TS) < utc(as_of))
    last = F.max(F.struct(TS, TEXT)).getField(TEXT).alias(TEXT)
    texts = counted(events, event_weights).where(there).groupBy(USER_ID, ITEM_ID).agg(last)
    numbered = texts.join(users.select(F.col(ID).alias(USER_ID), F.col(IDX).alias(USER_IDX)), USER_ID)
    numbered = numbered.join(items.select(F.col(ID).alias(ITEM_ID), F.col(IDX).alias(ITEM_IDX)), ITEM_ID)
    known = numbered.join(pairs.select(USER_IDX, ITEM_IDX), [USER_IDX, ITEM_IDX], "left_semi")
    words = F.slice(F.filter(F.split(F.lower(TEXT), r"(?U)\W+"), lambda w: w != ""), 1, config.words)
    return known.select(USER_IDX, ITEM_IDX, F.posexplode(words).alias(POSITION, "term"))


def vocabulary(words: DataFrame, config: RatingsConfig) -> dict[str, int]:
    """The words in most reviews and their numbers, from 1; equal ones in the order of the word.

    Args:
        words: Of ``review_words``.
        config: How many, and the least number of reviews.
    """
    within = words.select(USER_IDX, ITEM_IDX, "term").distinct().groupBy("term").count()
    frequent = within.where(F.col("count") >= config.min_df).orderBy(F.desc("count"), "term").limit(config.vocabulary)
    return {row["term"]: n for n, row in enumerate(frequent.select("term").collect(), 1)}


def word_rows(words: DataFrame, numbers: Mapping[str, int]) -> DataFrame:
    """user_idx int, item_idx int, position int, word int: those of the vocabulary, for a snapshot."""
    table = words.sparkSession.createDataFrame(list(numbers.items()), f"term string, {WORD} int")
    return words.join(F.broadcast(table), "term").select(USER_IDX, ITEM_IDX, POSITION, WORD)
