"""The user models of a night as scorers, and the hybrid on top of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pyspark.sql import functions as F

from sparkrec.evaluation.values import RECENT
from sparkrec.models.als.fold_in import fold_in
from sparkrec.models.als.train import load_als
from sparkrec.models.content.vectors import load_content
from sparkrec.models.content.vectors import profiles as content_profiles
from sparkrec.models.hybrid import blender as hybrid
from sparkrec.models.neighbours.nearest import load_neighbours, profiles
from sparkrec.models.popularity.counts import (
    plus_popularity,
    popularity_arrays,
    popularity_factors,
    popularity_matrix,
    times_popularity,
)
from sparkrec.models.two_tower import serve as towers
from sparkrec.models.two_tower.examples import seconds
from sparkrec.pipeline.night import Inputs, Night
from sparkrec.pipeline.parts import index_size, supported
from sparkrec.pipeline.scorer import (
    DenseScorer,
    ItemNeighbourScorer,
    NeighbourScorer,
    PopularityScorer,
    Scorer,
    UserNeighbourScorer,
    Wanted,
)
from sparkrec.prepare.cut import utc
from sparkrec.prepare.user_item import debiased, user_item
from sparkrec.prepare.weights import counted
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.retrieval.topk import SEEN, VECTOR, item_matrix
from sparkrec.settings.config import HybridConfig
from sparkrec.warehouse.cards import HOLDOUT, ModelCard, part_path, read_card
from sparkrec.warehouse.tables import IDX, INTERACTIONS, ITEM_IDX, ITEM_INDEX, TS, USER_FEATURES, USER_IDX, USER_INDEX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class HybridScorer:
    """Several models' candidates, ranked by the blender.

    Attributes:
        scorers: Model → its scorer, in the order that the blender learnt.
        blender: MLlib's classifier; None where it is still to be learnt.
        config: The hybrid's settings.
        context: Adds the features of items and users.
    """

    scorers: Mapping[str, Scorer]
    blender: Any
    config: HybridConfig
    context: Context

    @property
    def n_items(self) -> int:
        """See ``Scorer``."""
        return max(scorer.n_items for scorer in self.scorers.values())

    @property
    def features(self) -> list[str]:
        """Names of what the blender reads, in order."""
        context = hybrid.context_features() if self.config.context else []
        return [*hybrid.candidate_features(list(self.scorers)), *context]

    def candidates(self, users: DataFrame, wanted: Wanted) -> DataFrame:
        """All candidates of users ``(user_idx[, seen])`` and their features; ``wanted.seen`` by ``user_idx``."""
        each = replace(wanted, key=(USER_IDX,), k=self.config.candidates)
        lists = {name: scorer.best(users, each) for name, scorer in self.scorers.items()}
        rows = hybrid.candidates(lists, self.config.candidates)
        return self.context.added_to(rows) if self.config.context else rows

    def best(self, users: DataFrame, wanted: Wanted) -> DataFrame:
        """See ``Scorer``; ``wanted.seen`` is by ``user_idx``."""
        narrow = users.select(USER_IDX, *([SEEN] if SEEN in users.columns else []))
        lists = hybrid.blended(self.blender, self.candidates(narrow, wanted), self.features, wanted.k)
        others = [name for name in wanted.key if name != USER_IDX]
        return lists.join(users.select(USER_IDX, *others), USER_IDX, "inner") if others else lists


@dataclass(frozen=True)
class Context:
    """What a hybrid is told of items and users besides their scores."""

    interactions: DataFrame
    event_weights: Mapping[str, float]
    as_of: datetime

    def added_to(self, rows: DataFrame) -> DataFrame:
        """The rows with the features of their items and users."""
        return hybrid.with_context(rows, self.interactions, self.event_weights, self.as_of)


def user_scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> Scorer:
    """A user model as of a time, with the popularity prior: what happened from then on is not seen."""
    if card.model != "hybrid":
        return _with_prior(night, inputs, model_scorer(night, inputs, card, part, as_of), card, as_of)
    blender, meta = hybrid.load_blender(part_path(night.warehouse, card.model, night.run_date, part))
    return hybrid_scorer(night, inputs, meta["models"], part, as_of, blender)


def hybrid_scorer(
    night: Night, inputs: Inputs, models: Sequence[str], part: str, as_of: datetime, blender: Any = None
) -> HybridScorer:
    """The models' candidates, and those of recent popularity, as of a time.

    Args:
        night: The night.
        inputs: The stage's tables.
        models: Whose candidates.
        part: The part of each model that proposes.
        as_of: What happened from then on is not seen.
        blender: What ranks them; None where it is still to be learnt.
    """
    cards = [read_card(night.warehouse, model, night.run_date) for model in models]
    scorers = {card.model: user_scorer(night, inputs, card, part, as_of) for card in cards}
    rows, weights = inputs.read(INTERACTIONS), night.fmt.event_weights
    recent = item_popularity(night, inputs, weights, as_of, cards[0].n_items).recent
    scorers[RECENT] = PopularityScorer(popularity_matrix(recent))
    return HybridScorer(scorers, blender, night.config.hybrid, Context(rows, weights, as_of))


def timeless_scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> Scorer:
    """A user model's users and items as they lie beside each other: what depends on the time is left out."""
    scorer = model_scorer(night, inputs, card, part, as_of)
    if card.model != "two_tower" or not isinstance(scorer, DenseScorer):
        return scorer
    dim = towers.load_served(part_path(night.warehouse, card.model, night.run_date, part)).shape.dim
    queries = scorer.queries.withColumn(VECTOR, F.slice(VECTOR, 1, dim))
    return DenseScorer(queries, replace(scorer.items, vectors=scorer.items.vectors[:, :dim]))


def model_scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> Scorer:
    """A model that is trained by itself, as of a time, without the popularity prior."""
    makers: dict[str, Callable[[Night, Inputs, ModelCard, str, datetime], Scorer]] = {
        "als": _als,
        "two_tower": _two_tower,
        "item_neighbours": _item_neighbours,
        "user_neighbours": _user_neighbours,
        "content": _content,
    }
    return makers[card.model](night, inputs, card, part, as_of)


def _with_prior(night: Night, inputs: Inputs, scorer: Scorer, card: ModelCard, as_of: datetime) -> Scorer:
    """The scorer blended with what was popular of late, where the configuration asks for it."""
    prior = night.config.prior
    times = {"als": prior.als, "item_neighbours": prior.item_neighbours}.get(card.model, 0.0)
    plus = {"als": prior.als_added, "two_tower": prior.two_tower}.get(card.model, 0.0)
    if not times and not plus:
        return scorer
    users = item_popularity(night, inputs, night.fmt.event_weights, as_of, card.n_items).prior.astype(np.float32)
    if isinstance(scorer, NeighbourScorer):
        return replace(scorer, factors=popularity_factors(users, times))
    assert isinstance(scorer, DenseScorer)  # these are the models with a prior
    users = users[: len(scorer.items.vectors)]
    items = times_popularity(scorer.items, users, times) if times else scorer.items
    return replace(scorer, items=plus_popularity(items, users, plus) if plus else items)


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


def _als(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> DenseScorer:
    model = load_als(night.spark, part_path(night.warehouse, card.model, night.run_date, part))
    users, items = model.user_factors, model.item_factors
    if part == HOLDOUT and as_of > card.cutoff:  # served without a refit
        users, items = _came_later(night, inputs, users, items, as_of)
    return DenseScorer(users.select(F.col(IDX).alias(USER_IDX), VECTOR), item_matrix(items, card.n_items))


def _came_later(
    night: Night, inputs: Inputs, users: DataFrame, items: DataFrame, as_of: datetime
) -> tuple[DataFrame, DataFrame]:
    """The factors with those of users and items that ALS was not trained on, by what they did since."""
    config = night.config
    kept = supported(inputs.read(INTERACTIONS).where(F.col(TS) < utc(as_of)), config.prepare.support)
    taken = user_item(kept, config.prepare.user_item, night.fmt.event_weights, as_of)
    taken = debiased(taken, config.als.debias)
    theirs = taken.join(users.select(F.col(IDX).alias(USER_IDX)), USER_IDX, "left_anti")
    users = users.unionByName(fold_in(theirs, items, config.als, new=USER_IDX, known=ITEM_IDX))
    theirs = taken.join(items.select(F.col(IDX).alias(ITEM_IDX)), ITEM_IDX, "left_anti")
    return users, items.unionByName(fold_in(theirs, users, config.als, new=ITEM_IDX, known=USER_IDX))


def _two_tower(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> DenseScorer:
    path = part_path(night.warehouse, card.model, night.run_date, part)
    served, weights, rows = towers.load_served(path), night.fmt.event_weights, inputs.read(INTERACTIONS)
    shape = served.shape
    states = towers.user_states(
        rows, inputs.read(USER_FEATURES), shape.user_features, shape.history_length, weights, as_of
    )
    momentum = None  # that of the time up to which it was trained, which lies with it
    if served.as_of != seconds(as_of):  # served without a refit
        kept = supported(rows.where(F.col(TS) < utc(as_of)), night.config.prepare.support)
        momentum = towers.item_momentum(kept, shape.windows_days, shape.n_items, weights, as_of)
    vectors = towers.item_vectors(path, momentum=momentum)
    taken = item_popularity(night, inputs, weights, as_of, len(vectors)).ever > 0
    return DenseScorer(towers.user_vectors(states, path), ItemMatrix(vectors, None, taken & towers.known_items(path)))


def _item_neighbours(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> ItemNeighbourScorer:
    """The kept neighbours, and what users took until the time, the later the more."""
    path = part_path(night.warehouse, card.model, night.run_date, part)
    neighbours, _ = load_neighbours(night.spark, path, ITEM_IDX)
    half_life, weights = night.config.item_neighbours.half_life_days, night.fmt.event_weights
    taken = profiles(inputs.read(INTERACTIONS), weights, as_of, half_life)
    return ItemNeighbourScorer(neighbours, taken, index_size(inputs, ITEM_INDEX))


def _user_neighbours(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> UserNeighbourScorer:
    """The kept neighbours, and what they took until the time, the later the more."""
    path = part_path(night.warehouse, card.model, night.run_date, part)
    neighbours, _ = load_neighbours(night.spark, path, USER_IDX)
    half_life = night.config.user_neighbours.half_life_days
    settings = replace(night.config.prepare.user_item, half_life_days=half_life)
    taken = user_item(inputs.read(INTERACTIONS), settings, night.fmt.event_weights, as_of)
    n_users, n_items = index_size(inputs, USER_INDEX), index_size(inputs, ITEM_INDEX)
    return UserNeighbourScorer(neighbours, taken, n_items, n_users=n_users)


def _content(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> DenseScorer:
    items = load_content(part_path(night.warehouse, card.model, night.run_date, part))
    half_life, weights = night.config.content.half_life_days, night.fmt.event_weights
    return DenseScorer(content_profiles(inputs.read(INTERACTIONS), items, half_life, weights, as_of), items)
