"""The training stages. Each trains a hold-out model on what came before the cutoff, and the model to publish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from sparkrec.config import config_dict, config_hash
from sparkrec.errors import UserError
from sparkrec.evaluation.split import resolve_cutoff
from sparkrec.models.als import fit_als, save_als
from sparkrec.pipeline.ledger import StageResult, Versions
from sparkrec.pipeline.models import FULL, HOLDOUT, ModelCard, model_version, part_path, write_card
from sparkrec.pipeline.night import Inputs, Night
from sparkrec.pipeline.warm_start import FROM_SCRATCH, Beginning, Earlier, begin_with, beginning, index_ids
from sparkrec.prepare.cut import utc
from sparkrec.prepare.sessions import sessions
from sparkrec.prepare.support import filter_support
from sparkrec.prepare.user_item import debiased, user_item
from sparkrec.prepare.weights import counted
from sparkrec.tables import (
    INTERACTIONS,
    ITEM_FEATURES,
    ITEM_IDX,
    ITEM_INDEX,
    ITEM_VECTORS,
    SESSIONS,
    START_TS,
    TS,
    USER_FEATURES,
    USER_IDX,
    USER_INDEX,
    USER_ITEM,
    Table,
)
from sparkrec.training import gru, two_tower, two_tower_examples
from sparkrec.training.item_vectors import write_item_vectors
from sparkrec.training.launch import run_ranks
from sparkrec.training.snapshot import Manifest, write_snapshot

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Part:
    """One of the two models of a night."""

    name: str
    before: datetime  # it sees the events before this time, UTC


def parts(night: Night, cutoff: datetime) -> Iterator[Part]:
    """The hold-out part, and the full one where the configuration asks for a refit."""
    yield Part(HOLDOUT, cutoff)
    if night.config.evaluation.refit:
        yield Part(FULL, night.as_of)


@dataclass(frozen=True)
class Begin:
    """What each part of a night's model begins with.

    Attributes:
        beginning: The earlier models, or why there are none.
        earlier: By name of the part; None: from scratch.
        inputs: The stage's, with the versions of the earlier models.
    """

    beginning: Beginning
    earlier: dict[str, Earlier | None]
    inputs: Inputs

    @classmethod
    def of(cls, night: Night, inputs: Inputs, model: str, cutoff: datetime) -> Begin:
        """What the parts begin with: a hold-out part with a model that has not seen what it is judged on."""
        found = beginning(night, model)
        earlier = {part.name: begin_with(found.models, part.before) for part in parts(night, cutoff)}
        begun: Versions = {f"models/{model}/{name}": e.version for name, e in earlier.items() if e is not None}
        return cls(found, earlier, Inputs(night, inputs.versions | begun))

    def path(self, part: Part) -> str | None:
        """Folder of the model that a part begins with."""
        found = self.earlier[part.name]
        return found.path if found else None

    def note(self, part: Part) -> str:
        """What the ledger says of it."""
        found = self.earlier[part.name]
        return f", begun with {found.version}" if found else ""


def run_train_als(night: Night, inputs: Inputs) -> StageResult:
    """ALS-WR in MLlib, on the cluster itself."""
    config, rows = night.config, inputs.read(INTERACTIONS)

    def train(part: Part, path: str, meta: dict[str, Any]) -> str:
        if part.name == FULL:
            matrix = inputs.read(USER_ITEM)
        else:
            kept, _ = filter_support(before(rows, part), config.prepare.support)
            matrix = user_item(kept, config.prepare.user_item, night.fmt.event_weights, part.before)
        matrix = debiased(matrix, config.als.debias)
        save_als(fit_als(matrix, config.als, f"{config.warehouse.path}/_checkpoints/{night.run_id}"), path, meta)
        return ""

    return _train_parts(night, inputs, "als", config.als, user_cutoff(night, rows), train)


def run_train_gru(night: Night, inputs: Inputs) -> StageResult:
    """The session-parallel GRU, on Horovod workers fed by Petastorm."""
    config, rows = night.config, inputs.read(INTERACTIONS)
    starts = sessions(rows, config.prepare.sessions, night.fmt.session_events).select(START_TS)
    cutoff = resolve_cutoff(starts, START_TS, config.evaluation, night.as_of)
    n_items = index_size(inputs, ITEM_INDEX)
    begin = Begin.of(night, inputs, "gru", cutoff)

    def train(part: Part, path: str, meta: dict[str, Any]) -> str:
        if part.name == FULL:
            walked = inputs.read(SESSIONS)
        else:
            kept, _ = filter_support(before(rows, part), config.prepare.support)
            walked = sessions(kept, config.prepare.sessions, night.fmt.session_events)
        plan = gru.snapshot_rows(walked, config.gru)
        manifest = _snapshot(night, "gru", part, inputs, plan.rows, plan.group, plan.order, n_slots=config.gru.lanes)
        if not manifest.rows:
            raise UserError(
                f"no sessions to train the GRU on ({part.name})", fix="see prepare.sessions, prepare.support"
            )
        if config.gru.features:
            vectors = inputs.read(ITEM_VECTORS) if inputs.has(ITEM_VECTORS) else None
            write_item_vectors(vectors, manifest.path, config.gru.features)
        first = begin.path(part)
        note = _epochs(night, gru.train, (manifest.path, path, config.gru, config.train, n_items, meta, first))
        return note + begin.note(part)

    return _train_parts(night, begin.inputs, "gru", config.gru, cutoff, train, begin.beginning)


def run_train_two_tower(night: Night, inputs: Inputs) -> StageResult:
    """The two-tower model, on Horovod workers fed by Petastorm."""
    config, weights, rows = night.config, night.fmt.event_weights, inputs.read(INTERACTIONS)
    user_layout = two_tower_examples.feature_layout(inputs.read(USER_FEATURES), USER_IDX)
    item_layout = two_tower_examples.feature_layout(inputs.read(ITEM_FEATURES), ITEM_IDX)
    n_users, n_items = index_size(inputs, USER_INDEX), index_size(inputs, ITEM_INDEX)
    cutoff = user_cutoff(night, rows)
    begin = Begin.of(night, inputs, "two_tower", cutoff)
    second_outputs = two_tower_examples.second_outputs(config.two_tower, weights)
    codes = two_tower_examples.item_feature_matrix(inputs.read(ITEM_FEATURES), item_layout, n_items)

    def train(part: Part, path: str, meta: dict[str, Any]) -> str:
        kept, _ = filter_support(before(rows, part), config.prepare.support)
        seen = two_tower_examples.examples(
            kept, inputs.read(USER_FEATURES), user_layout, config.two_tower, weights, part.before
        )
        order = two_tower_examples.example_order(config.two_tower)
        decides = (config.two_tower.half_life_days, config.two_tower.second_head)
        manifest = _snapshot(night, "two_tower", part, inputs, seen, two_tower_examples.GROUP, order, settings=decides)
        if not manifest.rows:
            raise UserError(f"no interactions to train two towers on ({part.name})", fix="see prepare.support")
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
        return _epochs(night, two_tower.train, (task,)) + begin.note(part)

    return _train_parts(night, begin.inputs, "two_tower", config.two_tower, cutoff, train, begin.beginning)


def before(rows: DataFrame, part: Part) -> DataFrame:
    """What the part may see."""
    return rows.where(F.col(TS) < utc(part.before))


def user_cutoff(night: Night, rows: DataFrame) -> datetime:
    """Where the hold-out of the user models begins."""
    known = counted(rows, night.fmt.event_weights).where(F.col(USER_IDX).isNotNull())
    return resolve_cutoff(known, TS, night.config.evaluation, night.as_of)


def index_size(inputs: Inputs, table: Table) -> int:
    """Number of ids in an index at its pinned version."""
    return inputs.read(table).count()


def _snapshot(
    night: Night,
    model: str,
    part: Part,
    inputs: Inputs,
    rows: DataFrame,
    group: str,
    order: Sequence[str],
    n_slots: int | None = None,
    settings: Sequence[Any] = (),
) -> Manifest:
    """The pinned Parquet snapshot that the workers read; one of equal inputs is used again.

    ``settings`` are those of the model that decide on the values of the rows.
    """
    identity = {name: int(v) for name, v in inputs.versions.items() if isinstance(v, int)}
    prepared = int(config_hash(night.config.prepare, night.fmt, night.code_version, part.before, *settings)[:12], 16)
    path = f"{night.warehouse.snapshot_path(model, night.run_date)}/{part.name}"
    return write_snapshot(
        rows,
        path,
        group=group,
        order=order,
        n_files=night.config.train.snapshot_files,
        inputs={**identity, "prepared": prepared},
        n_slots=n_slots,
    )


def _epochs(night: Night, train: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """Trains on the ranks; the message for the ledger."""
    history = run_ranks(night.spark, train, args, night.config.train)[0]
    last = history[-1]
    seconds = sum(epoch["seconds"] for epoch in history)
    return f"{len(history)} epochs on {night.config.train.ranks} ranks, loss {last['loss']:.4f}, {seconds:.1f} s"


def _train_parts(
    night: Night,
    inputs: Inputs,
    model: str,
    settings: Any,
    cutoff: datetime,
    train: Callable[[Part, str, dict[str, Any]], str],
    begin: Beginning = FROM_SCRATCH,
) -> StageResult:
    version = model_version(night.run_date, settings, inputs.versions, night.code_version)
    meta = {"model": model, "model_version": version, "inputs": inputs.versions, "settings": config_dict(settings)}
    done, notes = [], [f"trained from scratch: {begin.full_retrain}"] if begin.full_retrain else []
    for part in parts(night, cutoff):
        note = train(part, part_path(night.warehouse, model, night.run_date, part.name), {**meta, "part": part.name})
        done.append(part.name)
        notes.append(f"{part.name}: {note}" if note else part.name)
    card = ModelCard(
        model=model,
        model_version=version,
        cutoff=cutoff,
        parts=tuple(done),
        n_users=index_size(inputs, USER_INDEX),
        n_items=index_size(inputs, ITEM_INDEX),
        inputs=dict(inputs.versions),
        warm_nights=begin.warm_nights,
        index_id=index_ids(night, model),
        full_retrain=begin.full_retrain,
    )
    write_card(night.warehouse, night.run_date, card)
    return StageResult(outputs={f"models/{model}": version}, message="; ".join(notes))
