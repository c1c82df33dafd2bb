"""Vectors of items: from their texts (tf-idf and truncated SVD, or Word2Vec), or ready ones of the ``items`` table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.sql import functions as F

from sparkrec.config import TextConfig
from sparkrec.errors import UserError
from sparkrec.tables import ID, IDX, ITEM_IDX, NAME, VECTOR

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

READY_TYPE = "array<float>"
WORDS, WEIGHTS = "words", "weights"


def text_vectors(items: DataFrame, index: DataFrame, columns: Sequence[str], config: TextConfig) -> DataFrame:
    """Vectors of the items' texts, of length 1; an item without a word of the vocabulary has no row.

    ``tfidf``: the weights tf · log((n + 1) / (df + 1)) of the ``vocabulary`` most frequent words, each item's of
    length 1, projected on the first ``dim`` right singular vectors of their matrix (latent semantic indexing,
    Deerwester et al. 1990). Only these, of the size of the vocabulary, come to the driver. ``word2vec``: the mean of
    the words' skip-gram vectors. Equal texts give equal vectors, up to rounding.

    Args:
        items: ``id`` string and the attributes.
        index: ``id`` string, ``idx`` int.
        columns: Attributes whose texts are joined.
        config: Method and its settings.

    Returns:
        item_idx int, name string (``text_<method>``), vector array<float>. A corpus of lower rank than ``dim`` has
        shorter vectors.

    Raises:
        UserError: ``items`` lacks a column, or no word is frequent enough.
    """
    lacking = [c for c in columns if c not in items.columns]
    if lacking or not columns:
        raise UserError(
            "no such text column in items",
            where=f"prepare.text.columns={list(columns)}",
            fix=f"choose among {', '.join(c for c, kind in items.dtypes if kind == 'string' and c != ID)}",
        )
    words = item_words(items, index, columns)
    vocabulary = _vocabulary(words, config)
    if not vocabulary:
        raise UserError(
            "no word is in enough items", where=f"prepare.text.min_df={config.min_df}", fix="lower prepare.text.min_df"
        )
    vectors = _tfidf(words, vocabulary, config.dim) if config.method == "tfidf" else _word2vec(words, config)
    return _of_length_one(vectors, f"text_{config.method}")


def ready_vectors(items: DataFrame, index: DataFrame) -> DataFrame | None:
    """The vectors that ``items`` has as ``array<float>`` columns, of length 1; None where it has no such column.

    Args:
        items: ``id`` string and the attributes.
        index: ``id`` string, ``idx`` int.

    Returns:
        item_idx int, name string (the column's), vector array<float>; no row for an item without a vector.

    Raises:
        UserError: The vectors of a column differ in width, or one holds a null, NaN or infinity.
    """
    names = [name for name, kind in items.dtypes if kind == READY_TYPE]
    if not names:
        return None
    pairs = F.array(*[F.struct(F.lit(n).alias(NAME), F.col(f"`{n}`").alias(VECTOR)) for n in names])
    each = index.join(items, ID, how="inner").select(F.col(IDX).alias(ITEM_IDX), F.explode(pairs).alias("one"))
    vectors = each.select(ITEM_IDX, "one.*").where(F.col(VECTOR).isNotNull())
    infinite = F.exists(VECTOR, lambda x: x.isNull() | F.isnan(x) | (F.abs(x) == float("inf")))
    width = F.size(VECTOR)
    wrong = vectors.groupBy(NAME).agg(
        F.min(width).alias("low"), F.max(width).alias("high"), F.max(infinite).alias("bad")
    )
    for row in wrong.where("bad or low < high").collect():
        raise UserError(
            "vectors of items must be of one width and finite",
            where=f"column {row[NAME]}, widths {row['low']} to {row['high']}",
            fix="mend the attribute file",
        )
    return _of_length_one(vectors, F.col(NAME))


def item_words(items: DataFrame, index: DataFrame, columns: Sequence[str]) -> DataFrame:
    """(item_idx int, words array<string>): lower-case runs of letters, digits and ``_``; items without one left out."""
    text = F.lower(F.concat_ws(" ", *[F.col(f"`{c}`") for c in columns]))
    words = F.filter(F.split(text, r"(?U)\W+"), lambda w: w != "")
    joined = index.join(items, ID, how="inner")
    return joined.select(F.col(IDX).alias(ITEM_IDX), words.alias(WORDS)).where(F.size(WORDS) > 0)


def _vocabulary(words: DataFrame, config: TextConfig) -> list[str]:
    """The words in most items, equal ones in order of the word; MLlib's own choice among them would be by chance."""
    each = words.select(F.explode(F.array_distinct(WORDS)).alias("word"))
    frequent = each.groupBy("word").count().where(F.col("count") >= config.min_df)
    return [row["word"] for row in frequent.orderBy(F.desc("count"), "word").limit(config.vocabulary).collect()]


def _tfidf(words: DataFrame, vocabulary: list[str], dim: int) -> DataFrame:
    from pyspark.ml.feature import IDF, CountVectorizerModel, Normalizer
    from pyspark.mllib.linalg import DenseMatrix
    from pyspark.mllib.linalg.distributed import IndexedRowMatrix

    model = CountVectorizerModel.from_vocabulary(vocabulary, inputCol=WORDS, outputCol="counts")
    counts = model.transform(words)
    weighted = IDF(inputCol="counts", outputCol="tfidf").fit(counts).transform(counts)
    rows = Normalizer(inputCol="tfidf", outputCol=WEIGHTS).transform(weighted).select(ITEM_IDX, WEIGHTS)
    matrix = IndexedRowMatrix(rows.rdd.map(_indexed_row).cache())
    right = _signed(matrix.computeSVD(min(dim, len(vocabulary)), computeU=False).V.toArray())
    projected = matrix.multiply(DenseMatrix(len(right), right.shape[1], right.ravel(order="F")))
    pairs = projected.rows.map(lambda row: (row.index, row.vector.toArray().tolist()))
    return words.sparkSession.createDataFrame(pairs, f"{ITEM_IDX} int, {VECTOR} array<double>")


def _indexed_row(row: Any) -> Any:
    from pyspark.mllib.linalg import Vectors
    from pyspark.mllib.linalg.distributed import IndexedRow

    weights: Any = Vectors.fromML(row[WEIGHTS])  # sparse
    return IndexedRow(row[ITEM_IDX], weights)


def _signed(right: np.ndarray) -> np.ndarray:
    """Singular vectors are given up to their sign: here the first of a column's largest entries is positive."""
    largest = np.abs(right).round(6).argmax(axis=0)
    signed: np.ndarray = right * np.where(right[largest, np.arange(right.shape[1])] < 0, -1.0, 1.0)
    return signed


def _word2vec(words: DataFrame, config: TextConfig) -> DataFrame:
    from pyspark.ml.feature import Word2Vec
    from pyspark.ml.functions import vector_to_array

    # One task in order of the items: more would each train on a part, and merge their results in any order.
    ordered = words.orderBy(ITEM_IDX).coalesce(1)
    learner = Word2Vec(
        vectorSize=config.dim, minCount=config.min_df, seed=config.seed, inputCol=WORDS, outputCol="mean"
    )
    found = learner.fit(ordered).transform(words)
    return found.select(ITEM_IDX, vector_to_array(F.col("mean")).alias(VECTOR))


def _of_length_one(vectors: DataFrame, name: str | Column) -> DataFrame:
    """(item_idx, name, vector array<float>) with Euclidean norm 1; vectors of zeros, but for rounding, are left out."""
    norm = F.sqrt(F.aggregate(VECTOR, F.lit(0.0), lambda total, x: total + x.cast("double") * x))
    named = F.lit(name) if isinstance(name, str) else name
    scaled = F.transform(VECTOR, lambda x: (x / F.col("norm")).cast("float"))
    return (
        vectors.withColumn("norm", norm).where("norm > 1e-6").select(ITEM_IDX, named.alias(NAME), scaled.alias(VECTOR))
    )
