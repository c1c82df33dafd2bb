"""prod2vec by MLlib's Word2Vec: the small alternative to the workers, stored as their model is.

MLlib learns skip-gram with a hierarchical softmax in place of negatives, and keeps every event, so ``negatives``,
``ns_exponent``, ``subsample`` and ``batch_size`` say nothing here, and neither does ``learning_rate``, which is that of
another optimiser. The whole model is on the driver, and learnt in one task: of more, each would learn on a part and
their results be added in any order.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkrec.errors import InvariantError, NothingToTrain
from sparkrec.log import log_event
from sparkrec.models.prod2vec.settings import Prod2VecConfig
from sparkrec.ranks import checkpoint
from sparkrec.warehouse.tables import BASKET_ID, ITEM_IDX, ITEMS, SESSION_ID

if TYPE_CHECKING:
    import torch
    from pyspark.sql import DataFrame

STEP_SIZE = 0.025  # word2vec's first learning rate; MLlib's fall in a line, too
WORDS = "words"


def fit_mllib(sequences: DataFrame, config: Prod2VecConfig, n_items: int) -> dict[str, torch.Tensor]:
    """Learns the items' vectors.

    Args:
        sequences: Columns of ``tables.COPURCHASE`` or of ``tables.SESSIONS``.
        config: ``dim``, ``window``, ``epochs`` and ``seed`` count.
        n_items: Size of the catalogue; items are 0 … n_items − 1.

    Returns:
        vectors float32 [n_items, dim] (0 for an item without one) and counts int64 [n_items].

    Raises:
        UserError: There is no pair of items to train on.
        InvariantError: An item is outside of the catalogue.
    """
    import torch
    from pyspark.ml.feature import Word2Vec
    from pyspark.sql import functions as F

    key = BASKET_ID if BASKET_ID in sequences.columns else SESSION_ID
    several = sequences.where(F.size(ITEMS) > 1).select(key, F.col(ITEMS).cast("array<string>").alias(WORDS))
    if several.isEmpty():
        raise NothingToTrain("no pair of items to train on", fix="longer sequences (prepare.baskets, prepare.sessions)")
    longest = int(sequences.agg(F.max(F.size(ITEMS))).first()[0])  # type: ignore[index]
    learner = Word2Vec(
        vectorSize=config.dim, windowSize=config.window, maxIter=config.epochs, stepSize=STEP_SIZE, minCount=1,
        maxSentenceLength=longest, numPartitions=1, seed=config.seed, inputCol=WORDS, outputCol="mean",
    )  # fmt: skip
    found = learner.fit(several.orderBy(key).coalesce(1)).getVectors().toPandas()
    vectors = np.zeros((n_items, config.dim), dtype=np.float32)
    items = found["word"].astype(int).to_numpy()
    _check(items, n_items)
    vectors[items] = np.stack([vector.toArray() for vector in found["vector"]])
    return {"vectors": torch.from_numpy(vectors), "counts": torch.from_numpy(_counts(sequences, n_items))}


def train_mllib(
    sequences: DataFrame, model_path: str, config: Prod2VecConfig, n_items: int, meta: dict[str, Any]
) -> dict[str, int]:
    """Learns, and writes the model to a folder; returns how many items are ``learnt`` and ``without`` a vector."""
    weights = fit_mllib(sequences, config, n_items)
    learnt = int((weights["vectors"] != 0).any(1).sum())
    items = {"learnt": learnt, "without": n_items - learnt}
    log_event("prod2vec_items", **items)
    described = {"model": "prod2vec", "n_items": n_items, "items": items, "config": asdict(config), "meta": meta}
    checkpoint.save_model(model_path, weights, described)
    return items


def _counts(sequences: DataFrame, n_items: int) -> np.ndarray:
    """int64 [n_items], events of each item."""
    from pyspark.sql import functions as F

    rows = sequences.select(F.explode(ITEMS).alias(ITEM_IDX)).groupBy(ITEM_IDX).agg(F.count("*").alias("n"))
    found = rows.toPandas()
    _check(found[ITEM_IDX].to_numpy(), n_items)
    counts = np.zeros(n_items, dtype=np.int64)
    counts[found[ITEM_IDX]] = found["n"]
    return counts


def _check(items: np.ndarray, n_items: int) -> None:
    if len(items) and (items.min() < 0 or items.max() >= n_items):
        raise InvariantError(f"an item is outside of the catalogue of {n_items}")
