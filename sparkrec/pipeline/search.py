"""A small search of settings on a validation night, by the training and the evaluation of the nights themselves.

What a setting is tried on, and how, is ``trials``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from sparkrec.errors import UserError
from sparkrec.log import log_event
from sparkrec.models import MODELS
from sparkrec.models.night import Night
from sparkrec.models.program import builds_on
from sparkrec.pipeline.halving import Settings
from sparkrec.pipeline.nightly import night_of, parse_run_date, pin, session_for
from sparkrec.pipeline.preflight import preflight
from sparkrec.pipeline.stage import Stage
from sparkrec.pipeline.stages import STAGES
from sparkrec.pipeline.trials import Trials, Tried, gated_value, judged_by, overrides, scratch, value_of, write_tried
from sparkrec.prepare.cut import as_of
from sparkrec.settings.config import Config
from sparkrec.settings.sections import GateConfig
from sparkrec.warehouse.ledger import Ledger
from sparkrec.warehouse.lock import locked

if TYPE_CHECKING:
    import polars as pl
    from pyspark.sql import SparkSession

_SHARED = ("prior", "prepare.user_item", "prepare.support", "prepare.sessions", "prepare.baskets")
SEARCHED = tuple(f"{prefix}." for prefix in (*MODELS, *_SHARED))


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
        needed = builds_on(model, configure(overrides(point)))
        if needed:
            fix = f"search without {', '.join(overrides(point)) or 'what the configuration says'}"
            raise UserError(f"{model} builds on {', '.join(needed)} with these settings", where=model, fix=fix)
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
    versions = pin(night, stage, Ledger(night.warehouse, night.run_date))
    configs = [configure(overrides(point)) for point in points]
    tried: list[Tried] = []
    with scratch(night) as folder:
        trials = Trials.of(night, model, versions, folder)
        validation, cutoff = str(trials.last_day), trials.cutoff.isoformat()
        log_event("search", model=model, settings=len(points), validation_night=validation, cutoff=cutoff)
        for point, config in zip(points, configs, strict=True):
            alone = all(judged_by(point) != earlier.judged_by for earlier in tried)
            tried.append(trials.run(point, config, with_baselines=alone))  # popularity is judged with the first
    write_tried(night, model, trials.last_day, tried, datetime.now(UTC))
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
    ranked = sorted((*reached, *popular), key=lambda row: -gated_value(row[2], gate))
    names = sorted({v.metric for one in tried for v in one.values if v.k == gate.k})
    rows = [
        (name, " ".join(overrides(settings)), *(value_of(values, metric, gate.k) for metric in names), seconds)
        for name, settings, values, seconds in ranked
    ]
    columns = ["model", "settings", *(f"{name}@{gate.k}" for name in names), "seconds"]
    return pl.DataFrame(rows, schema=columns, orient="row", schema_overrides={"seconds": pl.Float64})


def _not_a_grid(text: str) -> UserError:
    return UserError("setting is not key=[value, …]", where=text, fix="for example --try 'als.rank=[32, 64]'")
