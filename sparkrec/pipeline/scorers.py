"""The user models as queries and item matrices for the one top-K engine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import functions as F

from sparkrec.models.als import load_als
from sparkrec.pipeline.models import ModelCard, part_path
from sparkrec.pipeline.night import Inputs, Night
from sparkrec.prepare.cut import utc
from sparkrec.prepare.weights import counted
from sparkrec.retrieval import towers
from sparkrec.retrieval.topk import VECTOR, ItemMatrix, item_matrix
from sparkrec.tables import IDX, INTERACTIONS, ITEM_IDX, TS, USER_FEATURES, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

USER_MODELS = ("als", "two_tower")


@dataclass(frozen=True)
class Scorer:
    """A model ready for ``top_k``: queries ``(user_idx int, vector array<float>)`` and the items."""

    queries: DataFrame
    items: ItemMatrix


def user_scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> Scorer:
    """A user model's vectors as of a time: what happened from then on is not seen."""
    path = part_path(night.warehouse, card.model, night.run_date, part)
    if card.model == "als":
        return _als(night, card, path)
    return _two_tower(night, inputs, path, as_of)


def seen_pairs(night: Night, inputs: Inputs, before: datetime) -> DataFrame:
    """``(user_idx, item_idx)`` of all interactions of known users before a time, distinct."""
    known = F.col(USER_IDX).isNotNull() & (F.col(TS) < utc(before))
    rows = counted(inputs.read(INTERACTIONS), night.fmt.event_weights).where(known)
    return rows.select(USER_IDX, ITEM_IDX).distinct()


def _als(night: Night, card: ModelCard, path: str) -> Scorer:
    model = load_als(night.spark, path)
    queries = model.user_factors.select(F.col(IDX).alias(USER_IDX), VECTOR)
    return Scorer(queries, item_matrix(model.item_factors, card.n_items))


def _two_tower(night: Night, inputs: Inputs, path: str, as_of: datetime) -> Scorer:
    shape, weights = towers.load_served(path).shape, night.fmt.event_weights
    rows = inputs.read(INTERACTIONS)
    states = towers.user_states(
        rows, inputs.read(USER_FEATURES), shape.user_features, shape.history_length, weights, as_of
    )
    vectors = towers.item_vectors(path)
    known = np.zeros(len(vectors), dtype=np.bool_)
    taken = counted(rows, weights).where(F.col(TS) < utc(as_of)).select(ITEM_IDX).distinct().toArrow()
    known[taken.column(ITEM_IDX).to_numpy()] = True
    return Scorer(towers.user_vectors(states, path), ItemMatrix(vectors, None, known))
