"""What all training stages share: the parts of a night's model, what each may see, snapshots, epochs, the card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from sparkrec.errors import NothingToTrain, UserError
from sparkrec.evaluation.ratings import held_out_at_random
from sparkrec.evaluation.split import resolve_cutoff
from sparkrec.log import warn_event
from sparkrec.models import MODELS
from sparkrec.models.model import Lists, can_propose
from sparkrec.models.night import Inputs, Night
from sparkrec.models.program import program
from sparkrec.models.warm_start import FROM_SCRATCH, Earlier, WarmStart, index_ids, latest_before, warm_start_of
from sparkrec.prepare.copurchase import copurchase
from sparkrec.prepare.cut import EPOCH, utc
from sparkrec.prepare.sessions import sessions
from sparkrec.prepare.support import filter_support
from sparkrec.prepare.user_item import user_item
from sparkrec.prepare.weights import counted
from sparkrec.ranks.launch import in_turn, run_ranks
from sparkrec.ranks.snapshot import Manifest, write_snapshot
from sparkrec.settings.config import Config, config_dict, config_hash
from sparkrec.settings.formats import LogFormat
from sparkrec.settings.sections import PrepareConfig, SupportConfig
from sparkrec.spark.session import named_jobs
from sparkrec.warehouse.cards import (
    BLEND,
    FULL,
    HOLDOUT,
    RANDOM,
    ModelCard,
    model_version,
    part_path,
    read_card,
    write_card,
)
from sparkrec.warehouse.ledger import StageResult, Versions
from sparkrec.warehouse.tables import (
    COPURCHASE,
    INTERACTIONS,
    ITEM_IDX,
    ITEM_INDEX,
    N_EVENTS,
    SESSIONS,
    START_TS,
    TS,
    USER_IDX,
    USER_INDEX,
    USER_ITEM,
    Table,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Part:
    """One of the models that a night trains of a kind."""

    name: str
    before: datetime  # it sees the events before this time, UTC


def parts(night: Night, model: str, cutoff: datetime) -> Iterator[Part]:
    """The hold-out parts, the full one where the configuration asks for a refit, and what a hybrid learns from."""
    if model in blended_models(night.config):
        yield Part(BLEND, blend_cutoff(night, cutoff))
    yield Part(HOLDOUT, cutoff)
    if night.config.evaluation.ratings == "random" and program(model).rates(night.config):
        yield Part(RANDOM, night.as_of)
    if night.config.evaluation.refit:
        yield Part(FULL, night.as_of)


def blended_models(config: Config) -> list[str]:
    """The models whose candidates the hybrid ranks; none without a hybrid."""
    blending = [model for model in config.models if MODELS[model].blends]
    able = [m for m in config.models if can_propose(MODELS[m])]
    return (config.hybrid.models or able) if blending else []


def blend_cutoff(night: Night, cutoff: datetime) -> datetime:
    """Where the time begins that the hold-out's hybrid learns from: as long before the cutoff as the hold-out lasts."""
    return cutoff - (night.as_of - cutoff)


@dataclass(frozen=True)
class PartStarts:
    """What each part of a night's model begins with.

    Attributes:
        warm_start: The earlier models, or why there are none.
        earlier: By name of the part; None: from scratch.
        inputs: The stage's, with the versions of the earlier models.
    """

    warm_start: WarmStart
    earlier: dict[str, Earlier | None]
    inputs: Inputs

    @classmethod
    def of(cls, night: Night, inputs: Inputs, model: str, cutoff: datetime) -> PartStarts:
        """What the parts begin with: a hold-out part with a model that has not seen what it is judged on."""
        found = warm_start_of(night, model)
        zone = night.config.logs.timezone
        earlier = {part.name: latest_before(found.models, part.before, zone) for part in parts(night, model, cutoff)}
        theirs: Versions = {f"models/{model}/{name}": e.version for name, e in earlier.items() if e is not None}
        return cls(found, earlier, replace(inputs, versions=inputs.versions | theirs))

    def path(self, part: Part) -> str | None:
        """Folder of the model that a part begins with."""
        found = self.earlier[part.name]
        return found.path if found else None

    def note(self, part: Part) -> str:
        """What the ledger says of it."""
        found = self.earlier[part.name]
        return f", begun with {found.version}" if found else ""


def user_item_of(
    night: Night, inputs: Inputs, part: Part, half_life_days: float | None = None, every: bool = False
) -> DataFrame:
    """The user-item matrix that a part sees, in the columns of ``tables.USER_ITEM``; with a half-life of its own.

    ``every``: also of the items and users that ``prepare.support`` leaves out.
    """
    prepare = night.config.prepare
    if part.name == RANDOM:
        whole = user_item_of(night, inputs, replace(part, name=FULL), half_life_days, every)
        return whole.where(~held_out_at_random(night.config.evaluation))
    if part.name == FULL and half_life_days is None and not every:
        return inputs.read(USER_ITEM)
    settings = (
        prepare.user_item if half_life_days is None else replace(prepare.user_item, half_life_days=half_life_days)
    )
    seen = before(inputs.read(INTERACTIONS), part)
    kept = seen if every else supported(seen, prepare.support)
    return user_item(kept, settings, night.fmt.event_weights, part.before)


def sessions_of(night: Night, inputs: Inputs, part: Part) -> DataFrame:
    """The sessions that a part sees, in the columns of ``tables.SESSIONS``."""
    if part.name == FULL:
        return inputs.read(SESSIONS)
    prepare = night.config.prepare
    kept = supported(before(inputs.read(INTERACTIONS), part), prepare.support)
    return sessions(kept, prepare.sessions, night.fmt.session_events)


def baskets_of(night: Night, inputs: Inputs, part: Part) -> DataFrame:
    """The baskets that a part sees, in the columns of ``tables.COPURCHASE``."""
    if part.name == FULL:
        return inputs.read(COPURCHASE)
    prepare = night.config.prepare
    kept = supported(before(inputs.read(INTERACTIONS), part), prepare.support)
    return copurchase(kept, prepare.baskets, night.fmt.purchase_events)


def sequences_of(night: Night, inputs: Inputs, part: Part, which: str) -> DataFrame:
    """What a part learns from: baskets or sessions."""
    return baskets_of(night, inputs, part) if which == "copurchase" else sessions_of(night, inputs, part)


def before(rows: DataFrame, part: Part) -> DataFrame:
    """What the part may see."""
    return rows.where(F.col(TS) < utc(part.before))


def supported(rows: DataFrame, config: SupportConfig) -> DataFrame:
    """The rows that ``filter_support`` keeps, where nobody asks what it removed.

    With a threshold for items alone (as it is unless configured), or for users alone, one round is the fixed point:
    who leaves takes no event of the others of its kind along. Then there is nothing to compute beforehand.
    """
    if min(config.min_item_events, config.min_user_events) > 1:
        return filter_support(rows, config)[0]
    for column, least in ((ITEM_IDX, config.min_item_events), (USER_IDX, config.min_user_events)):
        if least > 1:
            seldom = rows.where(F.col(column).isNotNull()).groupBy(column).agg(F.count(F.lit(1)).alias(N_EVENTS))
            weak = seldom.where(F.col(N_EVENTS) < least).select(column)
            return rows.join(weak, column, "left_anti").select(*rows.columns)
    return rows


def model_cutoff(night: Night, inputs: Inputs, model: str) -> datetime:
    """Where the hold-out of a model begins: by the events of known users, the sessions' starts or the baskets.

    Where there are none to take a quantile of, it is the night itself: there is nothing to judge on either.
    """
    rows, config, kind = inputs.read(INTERACTIONS), night.config, MODELS[model].lists
    if kind is Lists.USERS:
        times = counted(rows, night.fmt.event_weights).where(F.col(USER_IDX).isNotNull()).select(TS)
    elif kind is Lists.SESSIONS:
        times = sessions(rows, config.prepare.sessions, night.fmt.session_events).select(F.col(START_TS).alias(TS))
    else:
        times = copurchase(rows, config.prepare.baskets, night.fmt.purchase_events).select(TS)
    try:
        return resolve_cutoff(times, TS, config.evaluation, night.as_of)
    except NothingToTrain:
        return night.as_of


def with_parts(night: Night, models: Sequence[str], *names: str) -> list[str]:
    """Those of the night's models that have all of these parts, in their order."""
    return [m for m in models if {*names} <= {*read_card(night.warehouse, m, night.run_date).parts}]


def require_parts(night: Night, models: Sequence[str], name: str) -> None:
    """Raises NothingToTrain where one of the night's models, which another one builds on, has no such part."""
    there = with_parts(night, models, name)
    lacking = [model for model in models if model not in there]
    if lacking:
        raise NothingToTrain(f"{', '.join(lacking)} of the night has no part {name}", fix="see its training's message")


def require_model(config: Config, needed: str, where: str, instead: str) -> None:
    """Refuses a setting (``key=value``) that reads another model of the night where the night trains none.

    Raises:
        UserError: So it is.
    """
    if needed not in config.models:
        raise UserError(f"it reads the vectors of {needed}", where=where, fix=f"add {needed} to models, or {instead}")


def pretrained_part(night: Night, needed: str, part: Part, cutoff: datetime) -> str:
    """The folder of the same part of another model of the night, whose vectors a model begins with.

    Raises:
        NothingToTrain: It has no such part.
        UserError: Its hold-out begins later than the model's own: it has seen what the model is judged on.
    """
    require_parts(night, [needed], part.name)
    theirs = read_card(night.warehouse, needed, night.run_date).cutoff
    if part.name != FULL and theirs > cutoff:
        raise UserError(
            f"{needed} has seen what the model is judged on: its hold-out begins {theirs:%Y-%m-%d %H:%M}",
            where=f"the model's begins {cutoff:%Y-%m-%d %H:%M}",
            fix="set evaluation.cutoff or evaluation.holdout_days, by which both begin at one time",
        )
    return part_path(night.warehouse, needed, night.run_date, part.name)


def require_vectors(model: str, prepare: PrepareConfig, fmt: LogFormat) -> None:
    """Refuses a model of the items' content where they have no vectors: of texts, of images or declared ones.

    Raises:
        UserError: So it is.
    """
    ready = any(type_ == "array<float>" for type_ in fmt.item_columns().values())
    if prepare.text.method == "none" and not prepare.image.column and not ready:
        fix = "set prepare.text.method or prepare.image.column, or declare vectors in the format"
        raise UserError("no vectors of the items", where=f"models=[{model}]", fix=fix)


def index_size(inputs: Inputs, table: Table) -> int:
    """Number of ids in an index at its pinned version."""
    night = inputs.night
    at = ("index_size", night.warehouse.path, table.name, inputs.versions[table.name])
    return night.found.once(at, lambda: inputs.read(table).count())


def snapshot(
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
    held_out = night.config.evaluation
    drawn = (held_out.ratings_share, held_out.ratings_seed) if part.name == RANDOM else ()
    decides = (night.config.prepare, night.fmt, night.code_version, part.before, *drawn, *settings)
    prepared = int(config_hash(*decides)[:12], 16)
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


@dataclass(frozen=True)
class Training:
    """What the ranks train of a part.

    Attributes:
        fn: A module-level function of the package, ``fn(comm, *args)``; it returns the history of its epochs.
        args: Its further arguments.
        note: What else the ledger says of it, asked when it is trained.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    note: Callable[[], str] = str


def epochs(night: Night, train: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """Trains on the ranks; the message for the ledger."""
    return _on_ranks(night, [Training(train, args)])[0]


def _on_ranks(night: Night, trainings: Sequence[Training]) -> list[str]:
    """Trains one after another on ranks that are started once; the messages for the ledger."""
    tasks = [(training.fn, training.args) for training in trainings]
    with named_jobs(night.spark, "ranks"):
        histories = run_ranks(night.spark, in_turn, (tasks,), night.config.train)[0] if tasks else []
    said = []
    for training, history in zip(trainings, histories, strict=True):
        seconds, loss = sum(epoch["seconds"] for epoch in history), history[-1]["loss"]
        how = f"{len(history)} epochs on {night.config.train.ranks} ranks, loss {loss:.4f}, {seconds:.1f} s"
        said.append(how + training.note())
    return said


def train_parts(
    night: Night,
    inputs: Inputs,
    model: str,
    train: Callable[[Part, str, dict[str, Any]], str | Training],
    cutoff: datetime | None = None,
    start: WarmStart = FROM_SCRATCH,
) -> StageResult:
    """Trains the parts of a night's model and writes its card, without the parts that there is nothing to train on.

    Args:
        night: The night.
        inputs: The stage's, with the versions that the card names.
        model: Its name.
        train: Trains a part into a folder with this description and returns a note for the ledger, or says what is to
            be trained on the ranks.
        cutoff: Where its hold-out begins; None: ``model_cutoff``.
        start: What it begins with.
    """
    settings, cutoff = getattr(night.config, model), cutoff or model_cutoff(night, inputs, model)
    version = model_version(night.run_date, settings, inputs.settings, inputs.versions, night.code_version)
    meta = {"model": model, "model_version": version, "inputs": inputs.versions, "settings": config_dict(settings)}
    made: dict[Part, str | Training] = {}
    lacking: dict[Part, str] = {}
    for part in parts(night, model, cutoff):
        night.warehouse.fence()
        path = part_path(night.warehouse, model, night.run_date, part.name)
        try:
            with named_jobs(night.spark, part.name):
                made[part] = train(part, path, {**meta, "part": part.name})
        except NothingToTrain as error:
            lacking[part] = _nothing_to_train(inputs, part, error)
    done, left = _trained(night, inputs, made)
    lacking |= left
    for part, reason in lacking.items():
        warn_event("part not trained", model=model, part=part.name, reason=reason)
    notes = [f"trained from scratch: {start.full_retrain}"] if start.full_retrain else []
    for part in parts(night, model, cutoff):
        note = done.get(part, f"NOT TRAINED, {lacking.get(part)}")
        notes.append(f"{part.name}: {note}" if note else part.name)
    card = ModelCard(
        model=model,
        model_version=version,
        cutoff=cutoff,
        parts=tuple(part.name for part in done),
        n_users=index_size(inputs, USER_INDEX),
        n_items=index_size(inputs, ITEM_INDEX),
        inputs=dict(inputs.versions),
        warm_nights=start.warm_nights,
        index_id=index_ids(night, model),
        full_retrain=start.full_retrain,
        untrained=[*lacking.values()][-1] if lacking else "",
    )
    write_card(night.warehouse, night.run_date, card)
    return StageResult(outputs={f"models/{model}": version}, message="; ".join(notes))


def _trained(night: Night, inputs: Inputs, made: dict[Part, str | Training]) -> tuple[dict[Part, str], dict[Part, str]]:
    """What there is to say of the trained parts, in their order; and of those with nothing to train on.

    The ranks are started once for all parts, and for each part of its own only where one of them finds nothing.
    """
    trainings = {part: one for part, one in made.items() if isinstance(one, Training)}
    said: dict[Part, str] = {}
    lacking: dict[Part, str] = {}
    night.warehouse.fence()
    try:
        said = dict(zip(trainings, _on_ranks(night, [*trainings.values()]), strict=True))
    except NothingToTrain:
        for part, training in trainings.items():
            try:
                (said[part],) = _on_ranks(night, [training])
            except NothingToTrain as error:
                lacking[part] = _nothing_to_train(inputs, part, error)
    told = {part: said[part] if isinstance(one, Training) else one for part, one in made.items() if part not in lacking}
    return told, lacking


def _nothing_to_train(inputs: Inputs, part: Part, error: NothingToTrain) -> str:
    """Why a part was not trained: a log that is younger than the hold-out needs no other settings, but days."""
    times = inputs.read(INTERACTIONS).agg(F.min(F.unix_micros(TS)).alias(TS))
    began = inputs.found.once("log begins", times.first)
    first = None if began is None or began[TS] is None else EPOCH + timedelta(microseconds=began[TS])
    if first is not None and first < part.before:
        return str(error).replace(";", ",")
    begins = "is empty" if first is None else f"begins at {first:%Y-%m-%d %H:%M}"
    return f"the log {begins}, the part sees what came before {part.before:%Y-%m-%d %H:%M}"
