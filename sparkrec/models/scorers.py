"""The user models of a night as scorers as of a time, and what a night knows of items and users until then."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from pyspark.sql import functions as F

from sparkrec.errors import InvariantError
from sparkrec.models.night import Inputs, Night
from sparkrec.models.popularity.counts import popularity_arrays
from sparkrec.models.program import program, required
from sparkrec.models.scorer import DenseScorer, Scorer, TakesPrior
from sparkrec.prepare.cut import utc
from sparkrec.prepare.weights import counted
from sparkrec.warehouse.cards import ModelCard, part_path
from sparkrec.warehouse.tables import INTERACTIONS, ITEM_IDX, TS, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def user_scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> Scorer:
    """A user model as of a time, with the popularity prior: what happened from then on is not seen."""
    scorer = model_scorer(night, inputs, card, part, as_of)
    times, plus = program(card.model).prior(night.config.prior)
    if not times and not plus:
        return scorer
    if not isinstance(scorer, TakesPrior):
        raise InvariantError(f"{card.model} has a prior, and its scorer takes none")
    popular = item_popularity(night, inputs, night.fmt.event_weights, as_of, card.n_items).prior.astype(np.float32)
    return scorer.with_prior(popular, times, plus)


def timeless_scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> Scorer:
    """A user model's users and items as they lie beside each other: what depends on the time is left out."""
    scorer, timeless = model_scorer(night, inputs, card, part, as_of), program(card.model).timeless
    if timeless is None or not isinstance(scorer, DenseScorer):
        return scorer
    return timeless(scorer, part_path(night.warehouse, card.model, night.run_date, part))


def model_scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> Scorer:
    """A user model as of a time, without the popularity prior."""
    return required(program(card.model).scorer, card.model, "lists for users")(night, inputs, card, part, as_of)


class ItemPopularity(NamedTuple):
    """Users who took each item, float64 ``[n_items]``: ever, in the baseline's window, in the prior's."""

    ever: npt.NDArray[np.float64]
    recent: npt.NDArray[np.float64]
    prior: npt.NDArray[np.float64]


def item_popularity(
    night: Night, inputs: Inputs, event_weights: Mapping[str, float], as_of: datetime, n_items: int
) -> ItemPopularity:
    """Popularity as of a time by the events that have a weight, counted once a stage."""
    windows = (None, night.config.evaluation.recent_days, night.config.prior.days)
    counting = tuple(sorted(name for name, weight in event_weights.items() if weight > 0))
    rows = inputs.read(INTERACTIONS)
    return inputs.found.once(
        ("popularity", counting, as_of, windows, n_items),
        lambda: ItemPopularity(*popularity_arrays(rows, event_weights, as_of, windows, n_items)),
    )


def seen_pairs(night: Night, inputs: Inputs, before: datetime) -> DataFrame:
    """``(user_idx, item_idx)`` of all interactions of known users before a time, distinct."""
    known = F.col(USER_IDX).isNotNull() & (F.col(TS) < utc(before))
    rows = counted(inputs.read(INTERACTIONS), night.fmt.event_weights).where(known)
    return rows.select(USER_IDX, ITEM_IDX).distinct()
