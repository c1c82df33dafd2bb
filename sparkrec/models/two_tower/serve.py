"""Serving of the two towers: users and items as vectors whose dot product is the score.

Users are computed on Spark, in Arrow batches, where each Python worker loads the model once; items (the catalogue)
where the caller is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkrec.models.two_tower.batches import DAY_S, SECONDS, UserArrays, code_columns, numeric_features
from sparkrec.models.two_tower.clock import whole_days
from sparkrec.models.two_tower.examples import counted_events, flat_codes, seconds
from sparkrec.models.two_tower.network import PAD, Feature, ItemBatch, TowerShape, TwoTower
from sparkrec.models.two_tower.step import user_batch
from sparkrec.processes import begin_task
from sparkrec.storage import files
from sparkrec.warehouse.tables import EVENT_ORDER, ITEM_IDX, USER_IDX

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame
    from torch import Tensor

HISTORY, HISTORY_TS, CODES, N_EVENTS, AS_OF, VECTOR = "history", "history_ts", "codes", "n_events", "as_of", "vector"
_BLOCK = 65_536  # items computed at once


class Served:
    """A model as loaded from its folder.

    Attributes:
        shape: Of the towers.
        table: float32 [n_rows, dim].
        dense: The dense part.
        item_codes: int32 [n_items, widths], as trained on.
        momentum: float32 [n_items, n_momentum], as of the moment that the model was trained for.
        as_of: Seconds since 1970 up to which it was trained; None where it is not said.
        model: The description in ``model.json``.
    """

    def __init__(self, path: str) -> None:
        import torch

        from sparkrec.ranks.checkpoint import load_model

        weights, self.model = load_model(path)
        self.shape = shape_of(self.model["shape"])
        self.table: Tensor = torch.cat([weights[f"rows.{name}"] for name in self.shape.segments])
        self.dense = TwoTower(self.shape)
        prefix = "dense."
        self.dense.load_state_dict({k[len(prefix) :]: w for k, w in weights.items() if k.startswith(prefix)})
        self.item_codes: np.ndarray = weights["item_codes"].numpy()
        self.momentum: np.ndarray = weights["momentum"].numpy()
        self.as_of: int | None = self.model.get("as_of")


def shape_of(values: Mapping[str, Any]) -> TowerShape:
    """The shape as ``model.json`` has it."""
    features = {k: tuple(Feature(**f) for f in values[k]) for k in ("user_features", "item_features")}
    listed = {k: tuple(values[k]) for k in ("hidden", "windows_days")}
    return TowerShape(**{**values, **features, **listed})


def load_served(path: str) -> Served:
    """The model in a folder; one that this process has loaded already is not loaded again."""
    from sparkrec.ranks.checkpoint import MODEL

    return _load(path, files.read_json(files.join(path, MODEL))["weights_sha256"])


def user_states(
    interactions: DataFrame,
    user_features: DataFrame,
    features: Sequence[Feature],
    history_length: int,
    event_weights: Mapping[str, float],
    as_of: datetime,
) -> DataFrame:
    """What the user tower reads, for every user with a counted event before ``as_of`` or with features.

    Args:
        interactions: Table ``interactions``.
        user_features: Table ``user_features``.
        features: Its layout as the model was trained on (``TowerShape.user_features``).
        history_length: ``TowerShape.history_length``.
        event_weights: Event type to weight, as trained on.
        as_of: UTC.

    Returns:
        user_idx int, history array<int> (the most recent first), history_ts array<bigint> (seconds), n_events
        bigint, as_of bigint, codes array<int>.
    """
    from pyspark.sql import functions as F

    rows = counted_events(interactions, event_weights, as_of)
    states = _recent(rows, history_length).join(
        rows.groupBy(USER_IDX).agg(F.count(F.lit(1)).alias(N_EVENTS)), USER_IDX, how="inner"
    )
    codes = F.array(*[F.coalesce(c, F.lit(0)) for c in code_columns(features)]).cast("array<int>")
    if features:
        states = states.join(flat_codes(user_features, USER_IDX, features), USER_IDX, how="full")
    none_int, none_long = F.array().cast("array<int>"), F.array().cast("array<bigint>")
    return states.select(
        USER_IDX,
        F.coalesce(HISTORY, none_int).alias(HISTORY),
        F.coalesce(HISTORY_TS, none_long).alias(HISTORY_TS),
        F.coalesce(N_EVENTS, F.lit(0)).cast("bigint").alias(N_EVENTS),
        F.lit(seconds(as_of)).cast("bigint").alias(AS_OF),
        codes.alias(CODES),
    )


def user_vectors(states: DataFrame, model_path: str) -> DataFrame:
    """Vectors of users: user_idx int, vector array<float> [dim + n_momentum].

    Args:
        states: As ``user_states`` makes them.
        model_path: The model's folder, readable by the executors.
    """
    columns = [USER_IDX, HISTORY, HISTORY_TS, N_EVENTS, AS_OF, CODES]

    def compute(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        served = load_served(model_path)
        begin_task()
        for batch in batches:
            vectors = batch_vectors(served, batch)
            ends = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
            lists = pa.ListArray.from_arrays(pa.array(ends), pa.array(vectors.ravel()))
            yield pa.RecordBatch.from_arrays([batch.column(0), lists], names=[USER_IDX, VECTOR])

    return states.select(*columns).mapInArrow(compute, f"{USER_IDX} int, {VECTOR} array<float>")


def batch_vectors(served: Served, batch: pa.RecordBatch) -> np.ndarray:
    """float32 [n, dim + n_momentum] for a batch of ``user_states``."""
    import torch

    shape = served.shape
    user, history, history_ts, n_events, as_of, codes = batch.columns
    now = as_of.to_numpy(zero_copy_only=False).astype(np.int64)
    ids = _padded(history, shape.history_length, PAD)
    times = _padded(history_ts, shape.history_length, 0)
    days = np.where(ids != PAD, (now[:, None] - times) / DAY_S, 0.0).astype(np.float32)
    arrays = UserArrays(
        user=user.to_numpy(zero_copy_only=False).astype(np.int64),
        history=ids,
        history_days=days,
        codes=_padded(codes, sum(f.width for f in shape.user_features), 0),
        numeric=numeric_features(n_events.to_numpy(zero_copy_only=False), days[:, 0]),
    )
    with torch.no_grad():
        return served.dense.query(served.table, user_batch(shape, arrays, None, "cpu")).numpy()


def item_vectors(
    model_path: str, item_codes: np.ndarray | None = None, momentum: np.ndarray | None = None
) -> np.ndarray:
    """Vectors of items [n_items, dim + n_momentum] float32; the dot product with a user's vector is the score.

    Args:
        model_path: The model's folder.
        item_codes: int32 [n_items, widths] of the night (``item_feature_matrix``); more items than the model was
            trained with are known by features and momentum alone. Default: as trained on.
        momentum: float32 [n_items, n_momentum] as of the night (``item_momentum``). Default: as of the moment that
            the model was trained for.
    """
    import torch

    served = load_served(model_path)
    codes = served.item_codes if item_codes is None else item_codes
    recent = served.momentum if momentum is None else momentum
    vectors = np.zeros((len(codes), served.shape.dim + served.shape.n_momentum), dtype=np.float32)
    with torch.no_grad():
        for first, batch in _item_batches(served.shape, codes):
            part = served.dense.items(served.table, batch).numpy()
            vectors[first : first + len(part), : served.shape.dim] = part
    vectors[: len(recent), served.shape.dim :] = recent[: len(codes)]
    return vectors


def known_items(model_path: str) -> np.ndarray:
    """Bool [n_items]: the items that the model knows something of, by their own row or by that of a feature.

    A row that no example has reached is stored as zeros. An item of such rows alone, as one below the support
    thresholds, would score by nothing but what all items have in common, above each that a user turns away from.
    """
    served = load_served(model_path)
    learnt = np.append((served.table != 0).any(1).numpy(), False)  # PAD, -1, is the last place
    known = np.zeros(len(served.item_codes), dtype=np.bool_)
    for first, batch in _item_batches(served.shape, served.item_codes):
        rows = np.column_stack([batch.item.numpy(), batch.codes.numpy()])
        known[first : first + len(rows)] = learnt[rows].any(1)
    return known


def item_momentum(
    interactions: DataFrame,
    windows_days: Sequence[float],
    n_items: int,
    event_weights: Mapping[str, float],
    as_of: datetime,
) -> np.ndarray:
    """float32 [n_items, windows + 1]: log counts of the events in the windows before ``as_of``, log age in days.

    The same as the model's own momentum, for a later time than the one up to which it was trained. Items beyond
    ``n_items`` are left out.
    """
    from pyspark.sql import functions as F

    now = seconds(as_of)
    rows = counted_events(interactions, event_weights, as_of)
    counts = [
        F.count_if(F.col(SECONDS) >= now - days * DAY_S).alias(f"count_{n}")
        for n, days in enumerate(whole_days(windows_days))
    ]
    found = (
        rows.where(F.col(ITEM_IDX) < n_items).groupBy(ITEM_IDX).agg(*counts, F.min(SECONDS).alias("birth")).toPandas()
    )  # the catalogue
    momentum = np.zeros((n_items, len(windows_days) + 1), dtype=np.float32)
    index = found[ITEM_IDX].to_numpy()
    for n in range(len(windows_days)):
        momentum[index, n] = np.log1p(found[f"count_{n}"].to_numpy())
    days = -((found["birth"].to_numpy() - now) // DAY_S)  # days begun, as the clock of the training counts them
    momentum[index, -1] = np.log1p(days)
    return momentum


@lru_cache(maxsize=2)
def _load(path: str, weights_sha256: str) -> Served:
    return Served(path)


def _item_batches(shape: TowerShape, item_codes: np.ndarray) -> Iterator[tuple[int, ItemBatch]]:
    """The items 0, 1, … in blocks, as rows of the table, each with the number of its first one."""
    import torch

    codes = torch.from_numpy(item_codes)
    for first in range(0, len(codes), _BLOCK):
        part = codes[first : first + _BLOCK]
        ids = torch.arange(first, first + len(part))
        yield first, ItemBatch(shape.id_rows("item", ids), shape.code_rows("item", part))


def _recent(rows: DataFrame, length: int) -> DataFrame:
    """user_idx, history, history_ts: the last ``length`` events of each user, the most recent first."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    latest = Window.partitionBy(USER_IDX).orderBy(F.desc(SECONDS), F.desc(EVENT_ORDER), F.desc(ITEM_IDX))
    numbered = rows.select(USER_IDX, ITEM_IDX, SECONDS, F.row_number().over(latest).alias("_n"))
    kept = numbered.where(f"_n <= {length}")
    ordered = F.sort_array(F.collect_list(F.struct("_n", ITEM_IDX, SECONDS)))
    lists = kept.groupBy(USER_IDX).agg(ordered.alias("_events"))
    return lists.select(
        USER_IDX, F.col(f"_events.{ITEM_IDX}").alias(HISTORY), F.col(f"_events.{SECONDS}").alias(HISTORY_TS)
    )


def _padded(lists: pa.Array, width: int, fill: int) -> np.ndarray:
    """int64 [n, width] of a list column without nulls; longer lists lose their end."""
    ends = lists.offsets.to_numpy()
    values = lists.values.to_numpy(zero_copy_only=False)
    place = ends[:-1, None] + np.arange(width)[None, :]
    valid = place < ends[1:, None]
    taken = values[np.where(valid, place, 0)] if len(values) else np.zeros(place.shape)
    return np.where(valid, taken, fill).astype(np.int64)
