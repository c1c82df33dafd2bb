"""The training stages of ALS, the GRU and the two towers."""

from __future__ import annotations

from typing import Any

from sparkrec.errors import NothingToTrain
from sparkrec.models.als.train import fit_als, save_als
from sparkrec.models.gru import train as gru
from sparkrec.models.two_tower import examples as two_tower_examples
from sparkrec.models.two_tower import train as two_tower
from sparkrec.pipeline.night import Inputs, Night
from sparkrec.pipeline.parts import (
    Begin,
    Part,
    before,
    epochs,
    index_size,
    model_cutoff,
    sessions_of,
    snapshot,
    supported,
    train_parts,
    user_item_of,
)
from sparkrec.prepare.user_item import debiased
from sparkrec.ranks.item_vectors import write_item_vectors
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import (
    INTERACTIONS,
    ITEM_FEATURES,
    ITEM_INDEX,
    ITEM_VECTORS,
    USER_FEATURES,
    USER_IDX,
    USER_INDEX,
)


def run_train_als(night: Night, inputs: Inputs) -> StageResult:
    """ALS-WR in MLlib, on the cluster itself."""
    config = night.config

    def train(part: Part, path: str, meta: dict[str, Any]) -> str:
        matrix = debiased(user_item_of(night, inputs, part), config.als.debias)
        save_als(fit_als(matrix, config.als, f"{config.warehouse.path}/_checkpoints/{night.run_id}"), path, meta)
        return ""

    return train_parts(night, inputs, "als", config.als, model_cutoff(night, inputs, "als"), train)


def run_train_gru(night: Night, inputs: Inputs) -> StageResult:
    """The session-parallel GRU, on Horovod workers fed by Petastorm."""
    config, cutoff = night.config, model_cutoff(night, inputs, "gru")
    n_items = index_size(inputs, ITEM_INDEX)
    begin = Begin.of(night, inputs, "gru", cutoff)

    def train(part: Part, path: str, meta: dict[str, Any]) -> str:
        plan = gru.snapshot_rows(sessions_of(night, inputs, part), config.gru)
        manifest = snapshot(night, "gru", part, inputs, plan.rows, plan.group, plan.order, n_slots=config.gru.lanes)
        if not manifest.rows:
            raise NothingToTrain(
                f"no sessions to train the GRU on ({part.name})", fix="see prepare.sessions, prepare.support"
            )
        if config.gru.features:
            vectors = inputs.read(ITEM_VECTORS) if inputs.has(ITEM_VECTORS) else None
            write_item_vectors(vectors, manifest.path, config.gru.features)
        first = begin.path(part)
        note = epochs(night, gru.train, (manifest.path, path, config.gru, config.train, n_items, meta, first))
        return note + begin.note(part)

    return train_parts(night, begin.inputs, "gru", config.gru, cutoff, train, begin.beginning)


def run_train_two_tower(night: Night, inputs: Inputs) -> StageResult:
    """The two-tower model, on Horovod workers fed by Petastorm."""
    config, weights, rows = night.config, night.fmt.event_weights, inputs.read(INTERACTIONS)
    user_layout = two_tower_examples.feature_layout(inputs.read(USER_FEATURES), USER_IDX)
    n_users, n_items = index_size(inputs, USER_INDEX), index_size(inputs, ITEM_INDEX)
    cutoff = model_cutoff(night, inputs, "two_tower")
    begin = Begin.of(night, inputs, "two_tower", cutoff)
    second_outputs = two_tower_examples.second_outputs(config.two_tower, weights)
    item_layout, codes = two_tower_examples.item_codes(inputs.read(ITEM_FEATURES), n_items)

    def train(part: Part, path: str, meta: dict[str, Any]) -> str:
        kept = supported(before(rows, part), config.prepare.support)
        seen = two_tower_examples.examples(
            kept, inputs.read(USER_FEATURES), user_layout, config.two_tower, weights, part.before
        )
        order = two_tower_examples.example_order(config.two_tower)
        decides = (config.two_tower.half_life_days, config.two_tower.second_head)
        manifest = snapshot(night, "two_tower", part, inputs, seen, two_tower_examples.GROUP, order, settings=decides)
        if not manifest.rows:
            raise NothingToTrain(f"no interactions to train two towers on ({part.name})", fix="see prepare.support")
        task = two_tower.TowerTask(
            snapshot_path=manifest.path,
            model_path=path,
            config=config.two_tower,
            train=config.train,
            n_users=n_users,
            n_items=n_items,
            user_features=user_layout,
            item_features=item_layout,
            item_codes=codes,
            as_of=two_tower_examples.seconds(part.before),
            repeats=night.fmt.recommend_seen,
            meta=meta,
            second_outputs=second_outputs,
            warm_start_path=begin.path(part),
        )
        return epochs(night, two_tower.train, (task,)) + begin.note(part)

    return train_parts(night, begin.inputs, "two_tower", config.two_tower, cutoff, train, begin.beginning)
