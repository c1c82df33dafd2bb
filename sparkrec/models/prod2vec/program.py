"""prod2vec and Meta-prod2vec in a night: trained on Horovod workers fed by Petastorm, or by MLlib's Word2Vec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparkrec.errors import UserError
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import Part, Training, index_size, sequences_of, snapshot, train_parts
from sparkrec.models.prod2vec import train as prod2vec
from sparkrec.models.prod2vec.embeddings import stored_embeddings
from sparkrec.models.prod2vec.mllib import train_mllib
from sparkrec.models.prod2vec.sequences import snapshot_rows
from sparkrec.models.prod2vec.side import Side
from sparkrec.models.program import Program
from sparkrec.models.two_tower.examples import item_codes
from sparkrec.settings.config import Config
from sparkrec.settings.formats import LogFormat
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import (
    COPURCHASE,
    INTERACTIONS,
    ITEM_FEATURES,
    ITEM_IDX,
    ITEM_INDEX,
    SESSIONS,
    USER_INDEX,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def train(night: Night, inputs: Inputs) -> StageResult:
    """prod2vec on Horovod workers fed by Petastorm, or by MLlib's Word2Vec."""
    config, n_items = night.config.prod2vec, index_size(inputs, ITEM_INDEX)

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> str | Training:
        sequences = sequences_of(night, inputs, part, config.sequences)
        if config.trainer == "mllib":
            items = train_mllib(sequences, path, config, n_items, meta)
            return f"{items['learnt']} items by MLlib, {items['without']} without a vector"
        where = sequence_snapshot(night, inputs, "prod2vec", part, sequences)
        return Training(prod2vec.train, (where, path, config, night.config.train, n_items, meta))

    return train_parts(night, inputs, "prod2vec", train_part)


def train_meta(night: Night, inputs: Inputs) -> StageResult:
    """prod2vec with the items' features in input and context, on Horovod workers fed by Petastorm."""
    config, n_items = night.config.meta_prod2vec, index_size(inputs, ITEM_INDEX)
    side = item_side(inputs.read(ITEM_FEATURES), config.side, n_items)

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> Training:
        sequences = sequences_of(night, inputs, part, config.sequences)
        where = sequence_snapshot(night, inputs, "meta_prod2vec", part, sequences)
        return Training(prod2vec.train, (where, path, config, night.config.train, n_items, meta, side))

    return train_parts(night, inputs, "meta_prod2vec", train_part)


def item_side(item_features: DataFrame, names: list[str], n_items: int) -> Side:
    """The items' side information.

    Args:
        item_features: Table ``item_features``.
        names: Its features that are used; []: all.
        n_items: Size of the index of items.

    Raises:
        UserError: There is no such feature, or none at all.
    """
    chosen = _chosen(names, [name for name in item_features.columns if name != ITEM_IDX], "the items have")
    layout, codes = item_codes(item_features.select(ITEM_IDX, *chosen), n_items)
    return Side(layout, codes)


def _chosen(names: Sequence[str], known: Sequence[str], whose: str) -> Sequence[str]:
    """Those of the known features that are named; of none named all."""
    lacking = [name for name in names if name not in known]
    if lacking or not known:
        fix = f"{whose}: {', '.join(known) or 'none'}"
        raise UserError("no such feature of items", where=f"meta_prod2vec.side={lacking}", fix=fix)
    return names or known


def sequence_snapshot(night: Night, inputs: Inputs, model: str, part: Part, sequences: DataFrame) -> str:
    """The folder of the snapshot that the workers read."""
    plan, which = snapshot_rows(sequences), sequences.columns[0]
    return snapshot(night, model, part, inputs, plan.rows, plan.group, plan.order, settings=(which,)).path


def sequence_events(night: Night) -> tuple[Any, ...]:
    """What decides which events make sessions and baskets."""
    return (night.fmt.session_events, night.fmt.purchase_events)


def check_side(config: Config, fmt: LogFormat) -> None:
    """Refuses side information that the items do not have."""
    declared = [feature.name for feature in fmt.item_features]
    _chosen(config.meta_prod2vec.side, declared, f"{fmt.name} declares")


PROGRAM = Program(
    train=train,
    reads=(INTERACTIONS, SESSIONS, COPURCHASE, USER_INDEX, ITEM_INDEX),
    depends=sequence_events,
    uses_ranks=lambda config: config.prod2vec.trainer == "workers",
    embeddings=stored_embeddings,
)
META_PROGRAM = Program(
    train=train_meta,
    reads=(INTERACTIONS, ITEM_FEATURES, SESSIONS, COPURCHASE, USER_INDEX, ITEM_INDEX),
    depends=lambda night: (night.fmt.item_features, *sequence_events(night)),
    check=check_side,
    embeddings=stored_embeddings,
)
