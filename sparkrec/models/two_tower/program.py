"""The two towers in a night: trained on Horovod workers fed by Petastorm, served by their vectors."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from pyspark.sql import functions as F

from sparkrec.errors import NothingToTrain, UserError
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import (
    Part,
    PartStarts,
    Training,
    before,
    index_size,
    model_cutoff,
    snapshot,
    supported,
    train_parts,
)
from sparkrec.models.program import Program
from sparkrec.models.scorer import DenseScorer
from sparkrec.models.scorers import item_popularity
from sparkrec.models.two_tower import examples, serve
from sparkrec.models.two_tower import train as towers
from sparkrec.prepare.cut import utc
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.retrieval.topk import VECTOR
from sparkrec.settings.config import Config
from sparkrec.settings.formats import LogFormat
from sparkrec.warehouse.cards import ModelCard, part_path
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import (
    FEATURE_INDEX,
    INTERACTIONS,
    ITEM_FEATURES,
    ITEM_INDEX,
    TS,
    USER_FEATURES,
    USER_IDX,
    USER_INDEX,
)


def train(night: Night, inputs: Inputs) -> StageResult:
    """The two-tower model, on Horovod workers fed by Petastorm."""
    config, weights, rows = night.config, night.fmt.event_weights, inputs.read(INTERACTIONS)
    user_layout = examples.feature_layout(inputs.read(USER_FEATURES), USER_IDX)
    n_users, n_items = index_size(inputs, USER_INDEX), index_size(inputs, ITEM_INDEX)
    cutoff = model_cutoff(night, inputs, "two_tower")
    starts = PartStarts.of(night, inputs, "two_tower", cutoff)
    second_outputs = examples.second_outputs(config.two_tower, weights)
    item_layout, codes = examples.item_codes(inputs.read(ITEM_FEATURES), n_items)

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> Training:
        kept = supported(before(rows, part), config.prepare.support)
        seen = examples.examples(kept, inputs.read(USER_FEATURES), user_layout, config.two_tower, weights, part.before)
        order = examples.example_order(config.two_tower)
        decides = (config.two_tower.half_life_days, config.two_tower.second_head)
        manifest = snapshot(night, "two_tower", part, inputs, seen, examples.GROUP, order, settings=decides)
        if not manifest.rows:
            raise NothingToTrain(f"no interactions to train two towers on ({part.name})", fix="see prepare.support")
        task = towers.TowerTask(
            snapshot_path=manifest.path,
            model_path=path,
            config=config.two_tower,
            train=config.train,
            n_users=n_users,
            n_items=n_items,
            user_features=user_layout,
            item_features=item_layout,
            item_codes=codes,
            as_of=examples.seconds(part.before),
            repeats=night.fmt.recommend_seen,
            meta=meta,
            second_outputs=second_outputs,
            warm_start_path=starts.path(part),
        )
        return Training(towers.train, (task,), lambda: starts.note(part))

    return train_parts(night, starts.inputs, "two_tower", train_part, cutoff, starts.warm_start)


def scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> DenseScorer:
    """Users by their history until the time, items by their features and momentum; of those that it knows something."""
    path = part_path(night.warehouse, card.model, night.run_date, part)
    served, weights, rows = serve.load_served(path), night.fmt.event_weights, inputs.read(INTERACTIONS)
    shape = served.shape
    states = serve.user_states(
        rows, inputs.read(USER_FEATURES), shape.user_features, shape.history_length, weights, as_of
    )
    momentum = None  # that of the time up to which it was trained, which lies with it
    if served.as_of != examples.seconds(as_of):  # served without a refit
        kept = supported(rows.where(F.col(TS) < utc(as_of)), night.config.prepare.support)
        momentum = serve.item_momentum(kept, shape.windows_days, shape.n_items, weights, as_of)
    vectors = serve.item_vectors(path, momentum=momentum)
    taken = item_popularity(night, inputs, weights, as_of, len(vectors)).ever > 0
    return DenseScorer(serve.user_vectors(states, path), ItemMatrix(vectors, None, taken & serve.known_items(path)))


def timeless(scorer: DenseScorer, path: str) -> DenseScorer:
    """Users and items without what depends on the time, which lies behind the towers' own dimensions."""
    dim = serve.load_served(path).shape.dim
    queries = scorer.queries.withColumn(VECTOR, F.slice(VECTOR, 1, dim))
    return DenseScorer(queries, replace(scorer.items, vectors=scorer.items.vectors[:, :dim]))


def check(config: Config, fmt: LogFormat) -> None:
    """Refuses a second head that would have nothing to learn."""
    examples.second_outputs(config.two_tower, fmt.event_weights)
    if config.two_tower.second_head == "rating" and fmt.value is None:
        fix = f"declare value in the format {fmt.name}, or set it to none"
        raise UserError("the log has no ratings to learn", where="two_tower.second_head=rating", fix=fix)


PROGRAM = Program(
    train=train,
    reads=(INTERACTIONS, ITEM_FEATURES, USER_FEATURES, USER_INDEX, ITEM_INDEX),
    depends=lambda night: (night.fmt.item_features, night.fmt.user_features),
    numbered_by=(USER_INDEX, ITEM_INDEX, FEATURE_INDEX),
    check=check,
    scorer=scorer,
    prior=lambda prior: (0.0, prior.two_tower),
    timeless=timeless,
)
