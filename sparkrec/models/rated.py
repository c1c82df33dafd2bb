"""Predicted ratings of pairs on Spark, whatever model predicts them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from sparkrec.evaluation.ratings import PREDICTED
from sparkrec.models.night import Night
from sparkrec.models.program import program, required
from sparkrec.processes import begin_task
from sparkrec.warehouse.cards import ModelCard, part_path
from sparkrec.warehouse.tables import ITEM_IDX, USER_IDX

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame


def with_ratings(night: Night, card: ModelCard, part: str, pairs: DataFrame) -> DataFrame:
    """The pairs ``(user_idx int, item_idx int, …)`` with ``predicted float`` by a part of a model that rates."""
    known = program(card.model)
    if known.ratings is not None:
        return known.ratings(night, card, part)(pairs)
    load = required(known.pair_ratings, card.model, "predicted ratings")
    path = part_path(night.warehouse, card.model, night.run_date, part)

    def predict(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        begin_task()
        rate = load(path)
        for batch in batches:
            user, item = (batch.column(name).to_numpy().astype(np.int64) for name in (USER_IDX, ITEM_IDX))
            found = pa.array(rate(user, item).astype(np.float32))
            yield pa.RecordBatch.from_arrays([*batch.columns, found], names=[*batch.schema.names, PREDICTED])

    schema = ", ".join(f"{name} {kind}" for name, kind in pairs.dtypes)
    return pairs.mapInArrow(predict, f"{schema}, {PREDICTED} float")
