"""The factors in a night: trained on Horovod workers fed by Petastorm, served as vectors."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from pyspark.sql import functions as F

from sparkrec.errors import NothingToTrain
from sparkrec.models.implicit_mf import train as ranks
from sparkrec.models.implicit_mf.serve import load_vectors, user_vectors
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import Part, Training, index_size, snapshot, train_parts, user_item_of
from sparkrec.models.program import Program
from sparkrec.models.scorer import DenseScorer
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.warehouse.cards import ModelCard, part_path
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import (
    CONFIDENCE,
    IDX,
    INTERACTIONS,
    ITEM_IDX,
    ITEM_INDEX,
    USER_IDX,
    USER_INDEX,
    USER_ITEM,
)

GROUP, ORDER = USER_IDX, (USER_IDX, ITEM_IDX)  # of a snapshot of pairs: whole users to a file


def train(night: Night, inputs: Inputs) -> StageResult:
    """The factors, on Horovod workers."""
    config = night.config.implicit_mf

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> Training:
        matrix = user_item_of(night, inputs, part, config.half_life_days)
        weight = F.lit(1.0).cast("float").alias(CONFIDENCE) if config.half_life_days is None else F.col(CONFIDENCE)
        pairs = matrix.select(USER_IDX, ITEM_IDX, weight)
        decides = (config.half_life_days,)
        manifest = snapshot(night, "implicit_mf", part, inputs, pairs, GROUP, ORDER, settings=decides)
        if not manifest.rows:
            raise NothingToTrain(f"no interactions to learn from ({part.name})", fix="see prepare.support")
        task = ranks.MfTask(
            snapshot_path=manifest.path,
            model_path=path,
            config=config,
            train=night.config.train,
            n_users=index_size(inputs, USER_INDEX),
            n_items=index_size(inputs, ITEM_INDEX),
            meta=meta,
        )
        return Training(ranks.train, (task,))

    return train_parts(night, inputs, "implicit_mf", train_part)


def scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> DenseScorer:
    """The factors of users and items, and the items' biases; who came after the training has none."""
    path = part_path(night.warehouse, card.model, night.run_date, part)
    _, items, bias = load_vectors(path)
    users = inputs.read(USER_INDEX).select(F.col(IDX).alias(USER_IDX))
    return DenseScorer(user_vectors(users, path), ItemMatrix(items, bias, items.any(axis=1)))


def timeless(scorer: DenseScorer, path: str) -> DenseScorer:
    """Users and items by their factors alone."""
    return replace(scorer, items=replace(scorer.items, bias=None))


PROGRAM = Program(
    train=train,
    reads=(INTERACTIONS, USER_ITEM, USER_INDEX, ITEM_INDEX),
    scorer=scorer,
    prior=lambda prior: (0.0, prior.implicit_mf),
    timeless=timeless,
)
