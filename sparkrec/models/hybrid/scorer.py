"""The lists of a hybrid: several models' candidates, ranked by the blender."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sparkrec.evaluation.values import RECENT
from sparkrec.models import MODELS
from sparkrec.models.hybrid import blender as hybrid
from sparkrec.models.hybrid.joined import Joined, joined
from sparkrec.models.hybrid.settings import HybridConfig
from sparkrec.models.model import Lists
from sparkrec.models.night import Inputs, Night
from sparkrec.models.popularity.counts import popularity_matrix
from sparkrec.models.scorer import PopularityScorer, Scorer, Wanted
from sparkrec.models.scorers import item_popularity, timeless_scorer, user_scorer
from sparkrec.retrieval.topk import SEEN
from sparkrec.warehouse.cards import read_card
from sparkrec.warehouse.tables import INTERACTIONS, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class HybridScorer:
    """Several models' candidates, ranked by the blender.

    Attributes:
        scorers: Model → its scorer, in the order that the blender learnt.
        blender: MLlib's classifier, or a ``serve.NetworkBlender``; None where it is still to be learnt.
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


def vectors_of(night: Night, inputs: Inputs, models: Sequence[str], part: str, as_of: datetime) -> Joined:
    """The vectors that a network joins, by ``hybrid.vectors``: of a part of the models, without what ages."""
    cards = [read_card(night.warehouse, model, night.run_date) for model in models]
    users = [card for card in cards if MODELS[card.model].lists is Lists.USERS]
    scorers = {card.model: timeless_scorer(night, inputs, card, part, as_of) for card in users}
    return joined(scorers, night.config.hybrid.vectors)
