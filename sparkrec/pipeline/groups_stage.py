"""The stage that puts users into groups, and says what each group is like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from sparkrec.errors import NothingToTrain
from sparkrec.groups.kmeans import group_users
from sparkrec.groups.profiles import attribute_values, profiles
from sparkrec.groups.rfm import rfm_scaling, rfm_values, rfm_vectors
from sparkrec.log import warn_event
from sparkrec.models.night import Inputs, Night
from sparkrec.models.scorer import DenseScorer
from sparkrec.models.scorers import seen_pairs, timeless_scorer
from sparkrec.retrieval.topk import VECTOR
from sparkrec.warehouse import store
from sparkrec.warehouse.cards import read_card
from sparkrec.warehouse.ledger import StageResult, Versions
from sparkrec.warehouse.tables import (
    ID,
    IDX,
    INTERACTIONS,
    ITEM_INDEX,
    ITEMS_TABLE,
    RUN_DATE,
    USER_GROUP_PROFILES,
    USER_GROUPS,
    USER_ID,
    USER_IDX,
    USER_INDEX,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def run_user_groups(night: Night, inputs: Inputs) -> StageResult:
    """``user_groups`` and ``user_group_profiles`` of every user who took something; none where there are too few."""
    try:
        return _grouped(night, inputs)
    except NothingToTrain as error:
        warn_event("no groups of users", reason=str(error))
        return StageResult(message=f"NO GROUPS: {error}")


def _grouped(night: Night, inputs: Inputs) -> StageResult:
    config, weights = night.config.user_groups, night.fmt.event_weights
    values = rfm_values(inputs.read(INTERACTIONS), weights, night.as_of).persist()
    vectors = rfm_vectors(values, rfm_scaling(values)) if config.vectors == "rfm" else _model_vectors(night, inputs)
    found = group_users(vectors.join(values.select(USER_IDX), USER_IDX, "left_semi"), config)
    users = inputs.read(USER_INDEX).select(F.col(ID).alias(USER_ID), F.col(IDX).alias(USER_IDX))
    named = found.groups.join(users, USER_IDX, "inner").withColumn(RUN_DATE, F.lit(night.run_date))
    taken = seen_pairs(night, inputs, night.as_of)
    described = profiles(found.groups, values, taken, _attributes(night, inputs))
    described = described.withColumn(RUN_DATE, F.lit(night.run_date)).coalesce(1)
    outputs: Versions = {
        USER_GROUPS.name: store.replace_night(named, night.warehouse, USER_GROUPS, night.run_date),
        USER_GROUP_PROFILES.name: store.replace_night(described, night.warehouse, USER_GROUP_PROFILES, night.run_date),
    }
    values.unpersist()
    silhouettes = ", ".join(f"{k}: {value:.3f}" for k, value in found.silhouettes.items())
    message = (
        f"{len(found.sizes)} groups of {', '.join(map(str, found.sizes))} users; silhouette by number: {silhouettes}"
    )
    return StageResult(outputs=outputs, rows_out=sum(found.sizes), message=message)


def _model_vectors(night: Night, inputs: Inputs) -> DataFrame:
    """``(user_idx, vector)`` of the model that the configuration names."""
    card = read_card(night.warehouse, night.config.user_groups.vectors, night.run_date)
    if not card.can_list:
        raise NothingToTrain(f"{card.model} was not trained", where=card.untrained)
    scorer = timeless_scorer(night, inputs, card, card.served_part, night.as_of)
    assert isinstance(scorer, DenseScorer)  # the configuration's choices are models with vectors of users
    return scorer.queries.select(USER_IDX, VECTOR)


def _attributes(night: Night, inputs: Inputs) -> DataFrame | None:
    """What describes a group: the values of the configured attribute, else of the title; None where there is none."""
    name = night.config.user_groups.profile or night.fmt.title
    if name is None or not inputs.has(ITEMS_TABLE):
        return None
    return attribute_values(inputs.read(ITEMS_TABLE), inputs.read(ITEM_INDEX), name)
