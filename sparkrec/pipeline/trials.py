"""Settings of a model, trained and judged on a validation night: what ``search`` and ``tune`` share.

The validation night is the last one that ends before the hold-out of the night begins. Its own hold-out is as long as
the night's, so what is chosen here has not seen what the night is judged on. Each setting is trained on the cluster
as a night would, without a refit; settings that differ in what follows the training only share one model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from sparkrec.errors import NothingToTrain
from sparkrec.evaluation.gains import Gains, GainsBook
from sparkrec.evaluation.values import NOT_JUDGED, RATINGS_SPLIT, MetricValue, split_of
from sparkrec.log import log_event
from sparkrec.models import MODELS
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import model_cutoff
from sparkrec.models.program import builds_on
from sparkrec.pipeline.halving import Settings
from sparkrec.pipeline.judge import Judged, judge
from sparkrec.pipeline.training import training_stage
from sparkrec.prepare.cut import as_of, utc
from sparkrec.settings.config import Config, config_hash, config_with
from sparkrec.settings.formats import LogFormat
from sparkrec.settings.sections import GateConfig
from sparkrec.storage import files
from sparkrec.warehouse import direct
from sparkrec.warehouse.cards import CARD, read_card
from sparkrec.warehouse.ledger import Versions
from sparkrec.warehouse.tables import INTERACTIONS, SEARCHES, TS, Table
from sparkrec.zones import zone_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SCRATCH, RMSE = "_search", "rmse"
_JUDGED_BY = ("prepare.support.", "prepare.sessions.", "prepare.baskets.")  # these change what is held out, too


@dataclass(frozen=True)
class Tried:
    """A setting and what it reached."""

    settings: Settings
    values: tuple[MetricValue, ...]
    split: str
    seconds: float
    baselines: tuple[Judged, ...] = field(default=(), repr=False)
    gains: Gains | None = field(default=None, repr=False, compare=False)
    judging: float = field(default=0.0, repr=False, compare=False)  # seconds, of ``seconds``

    @property
    def judged_by(self) -> Settings:
        """See ``judged_by``."""
        return judged_by(self.settings)

    @property
    def by_errors(self) -> bool:
        """Whether it is what predicted ratings reached, not lists."""
        return self.split == RATINGS_SPLIT

    def metric(self, gate: GateConfig) -> str:
        """The name of the metric that the gate looks at; of predicted ratings ``rmse``."""
        return RMSE if self.by_errors else gate.metric_of({v.metric for v in self.values})

    def value(self, gate: GateConfig) -> float:
        """That metric; NaN where it is not among the values."""
        return value_of(self.values, RMSE, None) if self.by_errors else gated_value(self.values, gate)


def gated_value(values: Sequence[MetricValue], gate: GateConfig) -> float:
    """The metric that the gate looks at; NaN where it is not among them."""
    return value_of(values, gate.metric_of({v.metric for v in values}), gate.k)


def judged_by(settings: Settings) -> Settings:
    """Those of the settings that change what the model is judged on, and popularity beside it."""
    return {key: value for key, value in settings.items() if key.startswith(_JUDGED_BY)}


def reached(
    point: Settings, model: str, fmt: LogFormat, judged: Sequence[Judged], seconds: float, by_errors: bool = False
) -> Tried:
    """What a setting reached by lists as they are published, or by predicted ratings; and the baselines beside it."""
    split = RATINGS_SPLIT if by_errors else split_of(model, fmt.recommend_seen)
    as_published = [one for one in judged if one[2] == split]
    values = tuple(value for name, _, _, value in as_published if name == model)
    others = tuple(one for one in as_published if one[0] != model)
    return Tried(point, values, split, seconds, others)


def value_of(values: Sequence[MetricValue], metric: str, k: int | None) -> float:
    """One of the metrics; NaN where it is not among them."""
    return next((v.value for v in values if (v.metric, v.k) == (metric, k)), float("nan"))


@dataclass(frozen=True)
class Trials:
    """Trains and judges settings of a model on the validation night of a night.

    Attributes:
        night: The night whose tables are used and whose hold-out stays unseen.
        model: One of ``models.MODELS``; what it builds on is trained with it.
        versions: Of the tables that its training reads.
        last_day: The validation night.
        cutoff: Where that night's hold-out begins.
        folder: For the models, which nobody will use.
    """

    night: Night
    model: str
    versions: Versions
    last_day: date
    cutoff: datetime
    folder: str

    @staticmethod
    def of(night: Night, model: str, versions: Versions, folder: str) -> Trials:
        """The trials of a night's model."""
        return Trials(night, model, versions, *validation_night(night, Inputs(night, versions), model), folder)

    def run(self, point: Settings, config: Config, with_baselines: bool = False, by_errors: bool = False) -> Tried:
        """Trains, where no settings of the same training were tried before, and judges.

        Args:
            point: The settings that are tried.
            config: The night's configuration with them.
            with_baselines: Judges popularity beside the model.
            by_errors: What counts are the errors of its predicted ratings.

        Raises:
            NothingToTrain: There is too little to train or to judge on.
        """
        other, known = self._on_validation(config)
        started = time.monotonic()
        for name in (*builds_on(self.model, config), self.model):
            if not files.exists(files.join(other.warehouse.model_path(name, self.last_day), CARD)):
                training_stage(MODELS[name]).run(other, known)
        trained, gate = time.monotonic(), self.night.config.gate
        book = GainsBook(gate.metric, gate.k, gate.per)
        errors = GainsBook(RMSE, 0) if by_errors else None
        judged = self._judged(other, known, with_baselines, book, errors)
        found = reached(point, self.model, self.night.fmt, judged, time.monotonic() - started, by_errors)
        said = {found.metric(gate): found.value(gate)} | ({} if by_errors else {"k": gate.k})
        log_event("tried", **said, seconds=found.seconds, settings=point)
        gains = (book if errors is None else errors).found.get((self.model, found.split))
        return replace(found, gains=gains, judging=time.monotonic() - trained)

    def trained_as(self, config: Config) -> str:
        """A hash of what decides the training; of a model that is built from others, and learns nothing, of theirs."""
        config = self._settings(config)
        model, needed = MODELS[self.model], builds_on(self.model, config)
        names = needed if model.needs and not model.on_ranks else (*needed, model.name)
        stages = [training_stage(MODELS[name]) for name in names]
        return config_hash(*[part for stage in stages for part in stage.settings(replace(self.night, config=config))])

    def _settings(self, config: Config) -> Config:
        """The configuration on the validation night."""
        warm = {f"{name}.warm_start": False for name, kind in MODELS.items() if kind.warm}
        alone = {"models": [*builds_on(self.model, config), self.model]}
        unseen = {"evaluation.refit": False, "evaluation.cutoff": self.cutoff.isoformat()}
        return config_with(config, {**unseen, **warm, **alone})

    def _on_validation(self, config: Config) -> tuple[Night, Known]:
        trained_as = self.trained_as(config)
        config = config_with(self._settings(config), {"warehouse.path": files.join(self.folder, trained_as)})
        other = replace(self.night, config=config, run_date=self.last_day)
        return other, Known(self.night, self.versions, settings=trained_as, before=other.as_of)

    def _judged(
        self, night: Night, inputs: Inputs, with_baselines: bool, book: GainsBook, errors: GainsBook | None
    ) -> list[Judged]:
        card = read_card(night.warehouse, self.model, night.run_date)
        judged = judge(night, inputs, [card], with_baselines, book, errors=errors)
        least = night.config.evaluation
        if any(value.metric == NOT_JUDGED for *_, value in judged):
            raise NothingToTrain(
                f"too little to train on before {card.cutoff:%Y-%m-%d}, or to judge on from then to {night.run_date}",
                where=f"evaluation.min_users={least.min_users}, evaluation.min_pairs={least.min_pairs}",
                fix=card.untrained
                or "a longer hold-out (evaluation.holdout_days), or a night with more events before it",
            )
        return judged


def validation_night(night: Night, inputs: Inputs, model: str) -> tuple[date, datetime]:
    """The last night that ends before the night's hold-out begins, and where its own hold-out begins."""
    cutoff = model_cutoff(night, inputs, model)
    zone = night.config.logs.timezone
    last_day = (cutoff - timedelta(days=1)).astimezone(zone_of(zone)).date()
    return last_day, as_of(last_day, zone) - (night.as_of - cutoff)


@dataclass(frozen=True)
class Known(Inputs):
    """The night's inputs as the validation night knew them."""

    before: datetime = field(kw_only=True)

    def read(self, table: Table) -> DataFrame:
        """Reads a table at its pinned version, without the events that were still to come."""
        rows = super().read(table)
        return rows.where(F.col(TS) < utc(self.before)) if table is INTERACTIONS else rows


@contextmanager
def scratch(night: Night) -> Iterator[str]:
    """A folder of the warehouse for models that nobody will use; it is removed in the end."""
    folder = files.join(night.warehouse.path, SCRATCH)
    try:
        yield folder
    finally:
        files.remove(folder)


def write_tried(night: Night, model: str, last_day: date, tried: Sequence[Tried], at: datetime) -> None:
    """Appends what was tried to ``searches``."""
    head = (at, night.run_date, last_day)
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
    direct.append([dict(zip(SEARCHES.column_names, row, strict=True)) for row in rows], night.warehouse, SEARCHES)


def overrides(point: Mapping[str, Any]) -> list[str]:
    """Settings as ``key=value``."""
    return [f"{key}={json.dumps(value)}" for key, value in point.items()]
