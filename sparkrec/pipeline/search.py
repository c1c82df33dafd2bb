"""A small search of settings on a validation night, by the training and the evaluation of the nights themselves.

The validation night is the last one that ends before the hold-out of the night begins. Its own hold-out is as long as
the night's, so what is chosen here has not seen what the night is judged on. Each setting is trained on the cluster
as a night would, without a refit; settings that differ in what follows the training only share one model.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from pyspark.sql import functions as F

from sparkrec.errors import UserError
from sparkrec.evaluation.values import NOT_JUDGED, MetricValue, split_of
from sparkrec.log import log_event
from sparkrec.models import MODELS
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import model_cutoff
from sparkrec.pipeline.judge import Judged, judge
from sparkrec.pipeline.nightly import night_of, parse_run_date, pin, session_for
from sparkrec.pipeline.preflight import preflight
from sparkrec.pipeline.stage import Stage
from sparkrec.pipeline.stages import STAGES
from sparkrec.prepare.cut import as_of, utc
from sparkrec.settings.config import Config, config_hash
from sparkrec.settings.formats import LogFormat
from sparkrec.settings.sections import GateConfig
from sparkrec.warehouse import files, store
from sparkrec.warehouse.cards import CARD, read_card
from sparkrec.warehouse.ledger import Ledger
from sparkrec.warehouse.lock import locked
from sparkrec.warehouse.tables import INTERACTIONS, SEARCHES, TS, Table
from sparkrec.zones import zone_of

if TYPE_CHECKING:
    import polars as pl
    from pyspark.sql import DataFrame, SparkSession

SCRATCH = "_search"
_SHARED = ("prior", "prepare.user_item", "prepare.support", "prepare.sessions", "prepare.baskets")
SEARCHED = tuple(f"{prefix}." for prefix in (*MODELS, *_SHARED))
_JUDGED_BY = ("prepare.support.", "prepare.sessions.", "prepare.baskets.")  # these change what is held out, too
Settings = dict[str, Any]


@dataclass(frozen=True)
class Tried:
    """A setting and what it reached."""

    settings: Settings
    values: tuple[MetricValue, ...]
    split: str
    seconds: float
    baselines: tuple[Judged, ...] = field(default=(), repr=False)

    @property
    def judged_by(self) -> Settings:
        """See ``judged_by``."""
        return judged_by(self.settings)

    def value(self, metric: str, k: int) -> float:
        """One of the metrics; NaN where it is not among them."""
        return _value(self.values, metric, k)


def judged_by(settings: Settings) -> Settings:
    """Those of the settings that change what the model is judged on, and popularity beside it."""
    return {key: value for key, value in settings.items() if key.startswith(_JUDGED_BY)}


def reached(point: Settings, model: str, fmt: LogFormat, judged: Sequence[Judged], seconds: float) -> Tried:
    """What a setting reached by lists as they are published, and popularity on the same hold-out."""
    split = split_of(model, fmt.recommend_seen)
    as_published = [one for one in judged if one[2] == split]
    values = tuple(value for name, _, _, value in as_published if name == model)
    others = tuple(one for one in as_published if one[0] != model)
    return Tried(point, values, split, seconds, others)


def _value(values: Sequence[MetricValue], metric: str, k: int) -> float:
    return next((v.value for v in values if (v.metric, v.k) == (metric, k)), float("nan"))


def parse_grid(texts: Sequence[str], model: str) -> list[Settings]:
    """The points of a grid.

    Args:
        texts: ``key=[value, …]`` each, such as ``als.rank=[32, 64]``.
        model: The model that is trained; settings of another one are refused.

    Returns:
        Every combination of the values, the last key changing fastest; without texts one empty setting.

    Raises:
        UserError: A text that is not of this form, an empty list, a key twice, or a key that a search cannot change.
    """
    others = tuple(f"{other}." for other in MODELS if other != model)
    axes: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, listed = text.partition("=")
        try:
            values = OmegaConf.to_object(OmegaConf.from_dotlist([f"values={listed}"]))["values"]  # type: ignore[index, call-overload]
        except Exception as error:  # the YAML parser raises many kinds
            raise _not_a_grid(text) from error
        if not equals or not isinstance(values, list) or not values or key in axes:
            raise _not_a_grid(text)
        if not key.startswith(SEARCHED) or key.startswith(others):
            allowed = ", ".join(f"{prefix}*" for prefix in SEARCHED if prefix not in others)
            raise UserError(
                "a search cannot change this setting", where=text, fix=f"{model} can be tried with {allowed}"
            )
        axes[key] = values
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]


def run_search(
    configure: Callable[[Sequence[str]], Config],
    run_date: str,
    model: str,
    grid: Sequence[str],
    *,
    spark: SparkSession | None = None,
) -> list[Tried]:
    """Tries settings of a model on the validation night of a night; see ``search``.

    Args:
        configure: The night's configuration with more ``key=value`` settings.
        run_date: The night, ``YYYY-MM-DD`` or ``yesterday``; its tables must be there.
        model: One of ``models.MODELS``.
        grid: ``key=[value, …]`` each; see ``parse_grid``.
        spark: The caller's session; without one a session is built, and stopped at the end.

    Raises:
        UserError: Bad input, configuration or environment, or a night is running on the warehouse.
    """
    alone = [name for name, kind in MODELS.items() if not kind.needs and not kind.blends]
    if model not in alone:
        raise UserError("no model that is trained by itself", where=model, fix=f"choose among {', '.join(alone)}")
    config, points = configure([]), parse_grid(grid, model)
    day = parse_run_date(run_date, config.logs.timezone)
    for point in points:  # a wrong setting is told at once
        configure(_overrides(point))
    stage = STAGES[f"train_{model}"]
    with session_for(config, spark) as session:
        preflight(session, config, [stage.name], as_of(day, config.logs.timezone))
        night = night_of(session, config, day)
        with locked(night.warehouse.path, night.run_id, config.warehouse.lock_expiry_s) as lock:
            return search(replace(night, lock=lock), model, points, configure, stage)


def search(
    night: Night, model: str, points: Sequence[Settings], configure: Callable[[Sequence[str]], Config], stage: Stage
) -> list[Tried]:
    """Trains and judges each setting on the validation night, and writes all of it to the table ``searches``.

    Args:
        night: The night whose tables are used and whose hold-out stays unseen.
        model: One of ``models.MODELS``.
        points: Settings, key → value each; see ``parse_grid``.
        configure: The night's configuration with more ``key=value`` settings.
        stage: The model's training stage.

    Returns:
        The settings in their order.

    Raises:
        UserError: Wrong settings (before anything is trained), missing tables, or nothing to train or judge on.
    """
    versions = pin(night, stage, Ledger(night.spark, night.warehouse, night.run_date))
    inputs = Inputs(night, versions)
    last_day, cutoff = validation_night(night, inputs, model)
    always = [
        "evaluation.refit=false",
        f"evaluation.cutoff={cutoff.isoformat()}",
        *(f"{name}.warm_start=false" for name, kind in MODELS.items() if kind.warm),
        f"models=[{model}]",
    ]
    configs = [configure([*always, *_overrides(point)]) for point in points]
    log_event("search", model=model, settings=len(points), validation_night=str(last_day), cutoff=cutoff.isoformat())
    tried: list[Tried] = []
    with _scratch(night) as folder:
        for point, config in zip(points, configs, strict=True):
            trained_as = config_hash(*stage.settings(replace(night, config=config)))
            warehouse = replace(config.warehouse, path=files.join(folder, trained_as))
            other = replace(night, config=replace(config, warehouse=warehouse, models=[model]), run_date=last_day)
            known = _Known(night, versions, settings=trained_as, before=other.as_of)
            started = time.monotonic()
            if not files.exists(files.join(other.warehouse.model_path(model, last_day), CARD)):
                stage.run(other, known)
            alone = all(
                judged_by(point) != earlier.judged_by for earlier in tried
            )  # popularity is judged with the first
            judged = _judge(other, known, model, with_baselines=alone)
            tried.append(reached(point, model, night.fmt, judged, time.monotonic() - started))
            metric, k = night.config.gate.metric, night.config.gate.k
            log_event("tried", **{metric: tried[-1].value(metric, k)}, k=k, seconds=tried[-1].seconds, settings=point)
    _write(night, model, last_day, tried)
    return tried


def shown(model: str, tried: Sequence[Tried], gate: GateConfig) -> pl.DataFrame:
    """What was tried, and popularity beside it, by the gate's metric, the best first.

    Returns:
        ``model`` (or the baseline), ``settings`` (of a baseline: those that change what it is judged on), the metrics
        at the gate's length, ``seconds`` (of a baseline null).
    """
    import polars as pl

    reached = [(model, one.settings, one.values, round(one.seconds, 1)) for one in tried]
    popular = [
        (name, one.judged_by, [v for other, _, _, v in one.baselines if other == name], None)
        for one in tried
        for name in dict.fromkeys(judged[0] for judged in one.baselines)
    ]
    ranked = sorted((*reached, *popular), key=lambda row: -_value(row[2], gate.metric, gate.k))
    names = sorted({v.metric for one in tried for v in one.values if v.k == gate.k})
    rows = [
        (name, " ".join(_overrides(settings)), *(_value(values, metric, gate.k) for metric in names), seconds)
        for name, settings, values, seconds in ranked
    ]
    columns = ["model", "settings", *(f"{name}@{gate.k}" for name in names), "seconds"]
    return pl.DataFrame(rows, schema=columns, orient="row", schema_overrides={"seconds": pl.Float64})


def validation_night(night: Night, inputs: Inputs, model: str) -> tuple[date, datetime]:
    """The last night that ends before the night's hold-out begins, and where its own hold-out begins."""
    cutoff = model_cutoff(night, inputs, model)
    zone = night.config.logs.timezone
    last_day = (cutoff - timedelta(days=1)).astimezone(zone_of(zone)).date()
    return last_day, as_of(last_day, zone) - (night.as_of - cutoff)


@dataclass(frozen=True)
class _Known(Inputs):
    """The night's inputs as the validation night knew them."""

    before: datetime = field(kw_only=True)

    def read(self, table: Table) -> DataFrame:
        """Reads a table at its pinned version, without the events that were still to come."""
        rows = super().read(table)
        return rows.where(F.col(TS) < utc(self.before)) if table is INTERACTIONS else rows


def _judge(night: Night, inputs: Inputs, model: str, with_baselines: bool) -> list[Judged]:
    card = read_card(night.warehouse, model, night.run_date)
    judged = judge(night, inputs, [card], with_baselines)
    least = night.config.evaluation
    if any(value.metric == NOT_JUDGED for *_, value in judged):
        raise UserError(
            f"too little to train on before {card.cutoff:%Y-%m-%d}, or to judge on from then to {night.run_date}",
            where=f"evaluation.min_users={least.min_users}, evaluation.min_pairs={least.min_pairs}",
            fix=card.untrained or "a longer hold-out (evaluation.holdout_days), or a night with more events before it",
        )
    return judged


def _overrides(point: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in point.items()]


@contextmanager
def _scratch(night: Night) -> Iterator[str]:
    """A folder of the warehouse for models that nobody will use; it is removed in the end."""
    folder = files.join(night.warehouse.path, SCRATCH)
    try:
        yield folder
    finally:
        files.remove(folder)


def _write(night: Night, model: str, last_day: date, tried: Sequence[Tried]) -> None:
    head = (datetime.now(UTC), night.run_date, last_day)
    rows: list[tuple[object, ...]] = []
    for one in tried:
        settings = json.dumps(one.settings, sort_keys=True)
        mine = [(model, settings, one.split, value, one.seconds) for value in one.values]
        theirs = json.dumps(one.judged_by, sort_keys=True)
        others = [(name, theirs, split, value, None) for name, _, split, value in one.baselines]
        rows += [
            (*head, name, text, v.metric, v.k, float(v.value), v.n, split, seconds)
            for name, text, split, v, seconds in (*mine, *others)
        ]
    frame = night.spark.createDataFrame(rows, SEARCHES.ddl).coalesce(1)
    store.append(frame, night.warehouse, SEARCHES)


def _not_a_grid(text: str) -> UserError:
    return UserError("setting is not key=[value, …]", where=text, fix="for example --try 'als.rank=[32, 64]'")
