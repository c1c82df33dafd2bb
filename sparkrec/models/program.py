"""The contract of a model with the night: what it reads, how it is trained, and how it makes lists.

A model's folder has one in its ``program.py``. What a model does not have is None; whom its lists are for decides which
of ``scorer``, ``session_model``, ``completed``, ``embeddings`` and ``partners`` it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sparkrec.errors import InvariantError, UserError
from sparkrec.models import MODELS, OURS
from sparkrec.models.model import named
from sparkrec.models.night import Inputs, Night
from sparkrec.models.scorer import DenseScorer, Scorer, SessionModel, Wanted
from sparkrec.models.sections import PriorConfig
from sparkrec.retrieval.block_search import IntArray, ItemMatrix
from sparkrec.settings.config import Config
from sparkrec.settings.formats import LogFormat
from sparkrec.warehouse.cards import ModelCard
from sparkrec.warehouse.ledger import StageResult, Versions
from sparkrec.warehouse.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

T = TypeVar("T")
# Predicts the ratings float32 [n] of pairs (user_idx int [n], item_idx int [n]); -1 for one without a number.
PairRatings = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _nothing(_: Night) -> tuple[Any, ...]:
    return ()


def _needed(_: Config) -> Sequence[str]:
    return ()


def _no_prior(_: PriorConfig) -> tuple[float, float]:
    return 0.0, 0.0


def _always(_: Config) -> bool:
    return True


def _never(_: Config) -> bool:
    return False


def _anything(_: Config, __: LogFormat) -> None:
    return None


@dataclass(frozen=True)
class Program:
    """What a night does with a model.

    Attributes:
        train: Its training stage.
        reads: The tables that this stage reads.
        optional: Those that it reads where they exist.
        depends: What its result depends on, besides the model's own settings and those that all training depends on.
        models: The night's models that it is trained from, by the configuration; those of ``Model.needs`` go without
            saying. They are trained before it.
        check: Raises UserError where the configuration or the format cannot serve it; before anything is read.
        numbered_by: Of a model that may begin with an earlier night's: the indexes whose numbers are those of its
            weights' rows.
        uses_ranks: Of a model that is trained on ranks: whether it is with these settings.
        scorer: Of users: ``(night, inputs, card, part, as_of)``, a part of the night's model as of a time. What
            happened from then on is not seen; without the popularity prior.
        prior: Of users: the powers with which recent popularity multiplies the scores, and is added to them.
        timeless: Of users: ``(scorer, folder of the part)``, without what depends on the time: vectors of users and
            items as they lie beside each other; None: the scorer's are such.
        rates: Of users: whether it predicts ratings with these settings: then it is judged by them, too.
        pair_ratings: Of one that does: ``(folder of the part)``, what predicts the ratings of pairs without Spark.
        pair_deviations: Likewise the standard deviations of these predictions; None of a part that does not know them.
        ratings: Likewise on Spark, ``(night, card, part)``: what appends ``predicted float`` to pairs ``(user_idx,
            item_idx, …)``; None: ``pair_ratings`` in each task.
        session_model: Of sessions: ``(night, card, part)``.
        embeddings: Of items: ``(folder of the part)``, the items' vectors, and those of what goes with them where these
            are others.
        partners: Of items, in place of vectors: ``(night, card, part, length, items that no list may hold)``, the lists
            ``(query_idx, item_idx, rank, score)``.
        completed: Of baskets: ``(night, card, part, baskets with their key and ``items array<int>``, wanted)``, the
            lists ``(key…, item_idx, rank, score)``.
        publish: ``(night, inputs, card)``: tables beside the lists; their versions.
    """

    train: Callable[[Night, Inputs], StageResult]
    reads: tuple[Table, ...]
    optional: tuple[Table, ...] = ()
    depends: Callable[[Night], tuple[Any, ...]] = _nothing
    models: Callable[[Config], Sequence[str]] = _needed
    check: Callable[[Config, LogFormat], None] = _anything
    numbered_by: tuple[Table, ...] = ()
    uses_ranks: Callable[[Config], bool] = _always
    scorer: Callable[[Night, Inputs, ModelCard, str, datetime], Scorer] | None = None
    prior: Callable[[PriorConfig], tuple[float, float]] = _no_prior
    timeless: Callable[[DenseScorer, str], DenseScorer] | None = None
    rates: Callable[[Config], bool] = _never
    pair_ratings: Callable[[str], PairRatings] | None = None
    pair_deviations: Callable[[str], PairRatings | None] | None = None
    ratings: Callable[[Night, ModelCard, str], Callable[[DataFrame], DataFrame]] | None = None
    session_model: Callable[[Night, ModelCard, str], SessionModel] | None = None
    embeddings: Callable[[str], tuple[ItemMatrix, ItemMatrix | None]] | None = None
    partners: Callable[[Night, ModelCard, str, int, IntArray | None], DataFrame] | None = None
    completed: Callable[[Night, ModelCard, str, DataFrame, Wanted], DataFrame] | None = None
    publish: Callable[[Night, Inputs, ModelCard], Versions] | None = None


def required(found: T | None, model: str, what: str) -> T:
    """What a program has, where whom its lists are for says that it must.

    Raises:
        InvariantError: It has not.
    """
    if found is None:
        raise InvariantError(f"{model} has no {what}")
    return found


def builds_on(model: str, config: Config) -> list[str]:
    """The night's models that one is trained from with these settings, each after those that it builds on itself."""
    direct = [*MODELS[model].needs, *program(model).models(config)]
    return [*dict.fromkeys(name for one in direct for name in (*builds_on(one, config), one))]


def program(model: str) -> Program:
    """What a night does with a model of ``MODELS``.

    Raises:
        UserError: Another package brings the model, and its program cannot be loaded.
    """
    known = MODELS[model]
    if known in OURS:
        found: Program = named(known.program)
        return found
    try:
        found = named(known.program)
    except Exception as error:  # whatever the other package raises
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"the model {model} of another package cannot be loaded: {reason}", where=known.program
        ) from error
    return found
