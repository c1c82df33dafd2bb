"""Vectors of items: from their texts (tf-idf and truncated SVD, Word2Vec, a CNN), or ready ones of ``items``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from pyspark.sql import functions as F

from sparkrec.errors import UserError
from sparkrec.prepare.features import feature_values
from sparkrec.prepare.text_cnn import CATEGORY, cnn_vectors
from sparkrec.processes import begin_task
from sparkrec.settings.formats import Feature
from sparkrec.settings.sections import TextConfig
from sparkrec.spark.broadcast import broadcast
from sparkrec.warehouse.tables import ID, IDX, ITEM_IDX, NAME, VALUE, VECTOR

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame

READY_TYPE = "array<float>"
_PARTS, _SPARE, _MOST_PASSES, _TOLERANCE = 8, 10, 40, 1e-9  # of the singular value decomposition
_TOLD = 1e-4  # an item of which the vectors tell a smaller share tells nothing but rounding errors
WORDS, WEIGHTS = "words", "weights"


def text_vectors(
    items: DataFrame,
    index: DataFrame,
    columns: Sequence[str],
    config: TextConfig,
    category: Feature | None = None,
) -> DataFrame:
    """Vectors of the items' texts, of length 1; an item without a word of the vocabulary has no row.

    ``tfidf``: the weights tf · log((n + 1) / (df + 1)) of the ``vocabulary`` most frequent words, each item's of
    length 1, projected on the first ``dim`` right singular vectors of their matrix (latent semantic indexing,
    Deerwester et al. 1990). Only these, of the size of the vocabulary, come to the driver. ``word2vec``: the mean of
    the words' skip-gram vectors. ``cnn``: see ``text_cnn``. Equal texts give equal vectors, up to rounding.

    Args:
        items: ``id`` string and the attributes.
        index: ``id`` string, ``idx`` int.
        columns: Attributes whose texts are joined.
        config: Method and its settings.
        category: ``cnn``: the feature whose value a text is to tell, of several the first in their order.

    Returns:
        item_idx int, name string (``text_<method>``), vector array<float>. A corpus of lower rank than ``dim`` has
        shorter vectors.

    Raises:
        UserError: ``items`` lacks a column, no word is frequent enough, or there is no category to tell.
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
    if config.method == "cnn":
        if category is None:
            raise no_category("")
        values = feature_values(items, [category], "item").groupBy(ID).agg(F.min(VALUE).alias(CATEGORY))
        categories = index.join(values, ID).select(F.col(IDX).alias(ITEM_IDX), CATEGORY)
        return _of_length_one(cnn_vectors(words, categories, vocabulary, config), "text_cnn")
    if config.method == "word2vec":
        return _of_length_one(_word2vec(words, config), "text_word2vec")
    return _of_length_one(_tfidf(words, vocabulary, config), "text_tfidf", _TOLD)


def category_of(features: Sequence[Feature], name: str) -> Feature:
    """The feature of items that texts are learnt by: the one of this name, or the first that is no number.

    Raises:
        UserError: There is none.
    """
    found = [one for one in features if one.name == name or (not name and one.kind != "bucket")]
    if not found:
        raise no_category(name)
    return found[0]


def no_category(name: str) -> UserError:
    """What is said where there is no such feature."""
    return UserError(
        "the catalogue has no category that texts could be learnt by",
        where=f"prepare.text.method=cnn, prepare.text.category={name}",
        fix="name a feature of the format's item_features, declare one, or set prepare.text.method=tfidf",
    )


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


def _tfidf(words: DataFrame, vocabulary: list[str], config: TextConfig) -> DataFrame:
    from pyspark.ml.feature import IDF, CountVectorizerModel, Normalizer

    model = CountVectorizerModel.from_vocabulary(vocabulary, inputCol=WORDS, outputCol="counts")
    counts = model.transform(words)
    weighted = IDF(inputCol="counts", outputCol="tfidf").fit(counts).transform(counts)
    vectors = Normalizer(inputCol="tfidf", outputCol=WEIGHTS).transform(weighted).select(ITEM_IDX, WEIGHTS)
    pairs = vectors.rdd.map(lambda row: (row[0], row[1].indices.tolist(), row[1].values.tolist()))
    rows = words.sparkSession.createDataFrame(pairs, f"{ITEM_IDX} int, places array<int>, {WEIGHTS} array<double>")
    # A fixed number of parts, each in order, so that sums are the same in each run.
    rows = rows.repartition(_PARTS, ITEM_IDX).sortWithinPartitions(ITEM_IDX).localCheckpoint()
    right = _signed(_right_singular(rows, len(vocabulary), config))
    shared = broadcast(rows.sparkSession, right)

    def project(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        begin_task()
        for batch in batches:
            found = (_sparse(batch, len(shared.value)) @ torch.from_numpy(shared.value)).numpy()
            lists = pa.array(list(found), pa.list_(pa.float64()))
            yield pa.RecordBatch.from_arrays([batch.column(ITEM_IDX), lists], names=[ITEM_IDX, VECTOR])

    return rows.mapInArrow(project, f"{ITEM_IDX} int, {VECTOR} array<double>")


def _right_singular(rows: DataFrame, n_words: int, config: TextConfig) -> np.ndarray:
    """The first ``dim`` right singular vectors [n_words, <= dim], by subspace iteration (Halko et al. 2011, sec. 4.5).

    Each pass over the rows multiplies a few more vectors than asked for, drawn at first, by A^T A. MLlib's own SVD
    makes one vector's product a pass, hundreds in all, and is not the same in each run.
    """
    width = min(n_words, config.dim + _SPARE)
    basis = np.linalg.qr(np.random.default_rng(config.seed).standard_normal((n_words, width)))[0]
    before = np.zeros(width)
    for _ in range(_MOST_PASSES):
        product = _gram_times(rows, basis)
        values, rotation = np.linalg.eigh(basis.T @ product)
        found = basis @ rotation[:, ::-1]
        if np.abs(values - before)[-config.dim :].max() <= _TOLERANCE * values[-1]:
            break
        before, basis = values, np.linalg.qr(product)[0]
    rank = int((values > _TOLERANCE * values[-1]).sum())
    return np.ascontiguousarray(found[:, : min(config.dim, rank)])


def _gram_times(rows: DataFrame, basis: np.ndarray) -> np.ndarray:
    """A^T A times the basis [n_words, k]: a matrix of this size comes from each part, never a row."""
    shared = broadcast(rows.sparkSession, basis)

    def partial(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        from pyspark import TaskContext

        begin_task()
        context = TaskContext.get()
        partition = context.partitionId() if context else 0
        factor = torch.from_numpy(shared.value)
        total = torch.zeros_like(factor)
        for batch in batches:
            matrix = _sparse(batch, len(factor))
            total += matrix.t() @ (matrix @ factor)
        part = pa.array([partition])
        yield pa.RecordBatch.from_arrays([part, pa.array([total.numpy().tobytes()])], names=["part", "total"])

    found = sorted(rows.mapInArrow(partial, "part bigint, total binary").collect())
    shared.destroy()
    totals = [np.frombuffer(row["total"]).reshape(basis.shape) for row in found]
    return np.sum(totals, axis=0)  # type: ignore[no-any-return]


def _sparse(batch: pa.RecordBatch, n_words: int) -> torch.Tensor:
    """The rows of a batch as a sparse matrix of doubles [rows, n_words]."""
    places, weights = batch.column("places"), batch.column(WEIGHTS)
    lengths = np.diff(places.offsets.to_numpy())
    at = np.stack([np.repeat(np.arange(len(lengths)), lengths), places.flatten().to_numpy()])
    values = torch.tensor(weights.flatten().to_numpy())
    return torch.sparse_coo_tensor(torch.from_numpy(at), values, (len(lengths), n_words), check_invariants=True)


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


def _of_length_one(vectors: DataFrame, name: str | Column, least: float = 0.0) -> DataFrame:
    """(item_idx, name, vector array<float>) with Euclidean norm 1; vectors no longer than ``least`` are left out."""
    norm = F.sqrt(F.aggregate(VECTOR, F.lit(0.0), lambda total, x: total + x.cast("double") * x))
    named = F.lit(name) if isinstance(name, str) else name
    scaled = F.transform(VECTOR, lambda x: (x / F.col("norm")).cast("float"))
    longer = vectors.withColumn("norm", norm).where(F.col("norm") > least)
    return longer.select(ITEM_IDX, named.alias(NAME), scaled.alias(VECTOR))
