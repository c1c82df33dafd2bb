"""The training stages of what goes with a product: prod2vec and its family, association rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparkrec.errors import UserError
from sparkrec.models.content2vec import train as content2vec
from sparkrec.models.prod2vec import train as prod2vec
from sparkrec.models.prod2vec.mllib import train_mllib
from sparkrec.models.prod2vec.sequences import snapshot_rows
from sparkrec.models.prod2vec.side import Side
from sparkrec.models.rules.mining import mine_rules, save_rules
from sparkrec.models.two_tower.examples import item_codes
from sparkrec.pipeline.night import Inputs, Night
from sparkrec.pipeline.parts import (
    Part,
    baskets_of,
    epochs,
    index_size,
    model_cutoff,
    require_parts,
    sessions_of,
    snapshot,
    train_parts,
)
from sparkrec.ranks.item_vectors import write_item_vectors
from sparkrec.warehouse.cards import part_path
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import ITEM_FEATURES, ITEM_IDX, ITEM_INDEX, ITEM_VECTORS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def run_train_prod2vec(night: Night, inputs: Inputs) -> StageResult:
    """prod2vec on Horovod workers fed by Petastorm, or by MLlib's Word2Vec."""
    config, n_items = night.config.prod2vec, index_size(inputs, ITEM_INDEX)

    def train(part: Part, path: str, meta: dict[str, Any]) -> str:
        sequences = _sequences(night, inputs, part, config.sequences)
        if config.trainer == "mllib":
            items = train_mllib(sequences, path, config, n_items, meta)
            return f"{items['learnt']} items by MLlib, {items['without']} without a vector"
        where = _snapshot(night, inputs, "prod2vec", part, sequences)
        return epochs(night, prod2vec.train, (where, path, config, night.config.train, n_items, meta))

    return train_parts(night, inputs, "prod2vec", config, model_cutoff(night, inputs, "prod2vec"), train)


def run_train_meta_prod2vec(night: Night, inputs: Inputs) -> StageResult:
    """prod2vec with the items' features in input and context, on Horovod workers fed by Petastorm."""
    config, n_items = night.config.meta_prod2vec, index_size(inputs, ITEM_INDEX)
    side = item_side(inputs.read(ITEM_FEATURES), config.side, n_items)

    def train(part: Part, path: str, meta: dict[str, Any]) -> str:
        sequences = _sequences(night, inputs, part, config.sequences)
        where = _snapshot(night, inputs, "meta_prod2vec", part, sequences)
        return epochs(night, prod2vec.train, (where, path, config, night.config.train, n_items, meta, side))

    return train_parts(night, inputs, "meta_prod2vec", config, model_cutoff(night, inputs, "meta_prod2vec"), train)


def run_train_content2vec(night: Night, inputs: Inputs) -> StageResult:
    """The items' content combined with the night's prod2vec, on Horovod workers fed by Petastorm."""
    config, n_items = night.config.content2vec, index_size(inputs, ITEM_INDEX)

    def train(part: Part, path: str, meta: dict[str, Any]) -> str:
        require_parts(night, ("prod2vec",), part.name)
        sequences = _sequences(night, inputs, part, night.config.prod2vec.sequences)
        where = _snapshot(night, inputs, "content2vec", part, sequences)
        names = write_item_vectors(inputs.read(ITEM_VECTORS), where, config.vectors, "content2vec.vectors")
        behaviour = part_path(night.warehouse, "prod2vec", night.run_date, part.name)
        return epochs(
            night, content2vec.train, (where, path, config, night.config.train, n_items, meta, behaviour, names)
        )

    return train_parts(night, inputs, "content2vec", config, model_cutoff(night, inputs, "content2vec"), train)


def run_train_rules(night: Night, inputs: Inputs) -> StageResult:
    """Association rules of the baskets."""

    def train(part: Part, path: str, meta: dict[str, Any]) -> str:
        mined = mine_rules(baskets_of(night, inputs, part), night.config.rules)
        save_rules(mined, path, {**meta, **mined.meta})
        found = ", ".join(f"{name} {value}" for name, value in mined.meta.items())
        return f"{mined.rules.count()} rules ({found})"

    return train_parts(night, inputs, "rules", night.config.rules, model_cutoff(night, inputs, "rules"), train)


def item_side(item_features: DataFrame, names: list[str], n_items: int) -> Side:
    """The items' side information.

    Args:
        item_features: Table ``item_features``.
        names: Its features that are used; []: all.
        n_items: Size of the index of items.

    Raises:
        UserError: There is no such feature, or none at all.
    """
    known = [name for name in item_features.columns if name != ITEM_IDX]
    lacking = [name for name in names if name not in known]
    if lacking or not known:
        fix = f"features of the format: {', '.join(known) or 'none'}"
        raise UserError("no such feature of items", where=f"meta_prod2vec.side={names}", fix=fix)
    chosen = item_features.select(ITEM_IDX, *(names or known))
    layout, codes = item_codes(chosen, n_items)
    return Side(layout, codes)


def _sequences(night: Night, inputs: Inputs, part: Part, which: str) -> DataFrame:
    """What a part learns from: baskets or sessions."""
    return baskets_of(night, inputs, part) if which == "copurchase" else sessions_of(night, inputs, part)


def _snapshot(night: Night, inputs: Inputs, model: str, part: Part, sequences: DataFrame) -> str:
    plan, which = snapshot_rows(sequences), sequences.columns[0]
    return snapshot(night, model, part, inputs, plan.rows, plan.group, plan.order, settings=(which,)).path
