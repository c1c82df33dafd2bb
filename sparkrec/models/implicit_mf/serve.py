"""The users' and items' vectors from the model's folder; their inner product is the score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sparkrec.processes import begin_task
from sparkrec.retrieval.topk import VECTOR
from sparkrec.storage import files
from sparkrec.warehouse.tables import USER_IDX

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame


class Vectors(NamedTuple):
    """A model as loaded from its folder; rows of users and items without a pair are 0."""

    users: np.ndarray  # float32 [n_users, dim]
    items: np.ndarray  # float32 [n_items, dim]
    item_bias: np.ndarray  # float32 [n_items]


def load_vectors(path: str) -> Vectors:
    """The model in a folder; one that this process has loaded already is not loaded again."""
    from sparkrec.ranks.checkpoint import MODEL, MODEL_HASH

    return _load(path, files.read_json(files.join(path, MODEL))[MODEL_HASH])


@lru_cache(maxsize=2)
def _load(path: str, _: str) -> Vectors:
    from sparkrec.ranks.checkpoint import load_model

    weights, _model = load_model(path)
    return Vectors(*(weights[name].numpy() for name in Vectors._fields))


def user_vectors(users: DataFrame, path: str) -> DataFrame:
    """``(user_idx int, vector array<float>)`` of the users ``(user_idx, …)`` that the model knows.

    Args:
        users: Any.
        path: The model's folder, readable by the executors.
    """

    def look_up(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        begin_task()
        vectors = load_vectors(path).users
        for batch in batches:
            user = batch.column(0).to_numpy()
            user = user[user < len(vectors)]
            user = user[vectors[user].any(axis=1)]
            ends = np.arange(len(user) + 1, dtype=np.int32) * vectors.shape[1]
            lists = pa.ListArray.from_arrays(pa.array(ends), pa.array(vectors[user].ravel()))
            yield pa.RecordBatch.from_arrays([pa.array(user.astype(np.int32)), lists], names=[USER_IDX, VECTOR])

    return users.select(USER_IDX).mapInArrow(look_up, f"{USER_IDX} int, {VECTOR} array<float>")
