"""Settings that find themselves: tried on the night before the hold-out begins, used from then on where they win."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from sparkrec.errors import UserError
from sparkrec.log import log_event, warn_event
from sparkrec.models import MODELS
from sparkrec.models.night import Inputs, Night
from sparkrec.models.program import builds_on, program
from sparkrec.pipeline.halving import Found, Reached, Settings, Space, halving
from sparkrec.pipeline.training import training_stage
from sparkrec.pipeline.trials import Trials, Tried, scratch, write_tried
from sparkrec.settings.checks import tune_nights
from sparkrec.settings.config import Config, config_with, own_settings
from sparkrec.settings.setting import walked
from sparkrec.warehouse import direct
from sparkrec.warehouse.ledger import StageResult, Versions
from sparkrec.warehouse.tables import RUN_DATE, TUNED

SEED = 1


def tune_due(night: Night) -> tuple[bool, str]:
    """Whether a model's settings are to be tried tonight; see ``Stage.plan``."""
    due = due_models(night)
    return bool(due), f"settings of {', '.join(due)} are to be tried" if due else "no model is due"


def due_models(night: Night) -> list[str]:
    """The models of the night that something is to be tried of, in order: a model after those that it builds on."""
    every, past = tune_nights(night.config.tune), _tuned(night)
    if every is None:
        return []
    last = {row["model"]: row[RUN_DATE] for row in past}
    able = [name for name in night.config.models if ranges(night.config, name)]
    return [
        name
        for name in sorted(able, key=lambda name: len(builds_on(name, night.config)))
        if name not in last or (every and (night.run_date - last[name]).days >= every)
    ]


def with_tuned(night: Night) -> Night:
    """The night with the settings that were taken over, the latest of each model; those that somebody set stay."""
    if tune_nights(night.config.tune) is None:
        return night
    found = _taken_over(night)
    return replace(night, config=config_with(night.config, found)) if found else night


def run_tune(night: Night, inputs: Inputs) -> StageResult:
    """Tries settings of the models that are due within ``tune_minutes``, and keeps in ``tuned`` what came of it."""
    due = due_models(night)
    if not due:
        return StageResult(skipped=True, message="no model is due")
    until = time.monotonic() + 60 * night.config.tune_minutes
    notes, outputs, taken = [], Versions(), _taken_over(night)
    with scratch(night) as folder:
        for n, model in enumerate(due):
            night.warehouse.fence()
            current = replace(night, config=config_with(night.config, taken))
            seconds = max(0.0, until - time.monotonic()) / (len(due) - n)
            try:
                note, version, found = _tune(current, inputs, model, folder, seconds, night.config)
            except UserError as error:
                warn_event("model not tuned", model=model, reason=str(error))
                notes.append(f"{model} not tuned: {error}")
                continue
            notes.append(note)
            outputs[TUNED.name] = version
            taken |= found  # in use for the models after it
    return StageResult(outputs=outputs, message="; ".join(notes))


def ranges(config: Config, model: str) -> dict[str, tuple[Any, ...]]:
    """What is tried of a model: the values of each of its settings, of its prior's too, but of those that are set."""
    mine = set(own_settings(config))
    prior = {f"prior.{name}" for name in (model, f"{model}_added")}
    return {
        dotted: tuple(one.metadata["tried"])
        for dotted, _, one in walked(config)
        if (dotted.startswith(f"{model}.") or dotted in prior) and one.metadata.get("tried") and dotted not in mine
    }


def _tune(
    night: Night, inputs: Inputs, model: str, folder: str, seconds: float, untuned: Config
) -> tuple[str, int, Settings]:
    """Tries settings of a model; what came of it in words, the version of ``tuned``, and what is taken over.

    Args:
        night: The night, with what the models before have found.
        inputs: The stage's.
        model: The model.
        folder: For the models that are trained.
        seconds: The budget.
        untuned: The configuration as somebody has set it.
    """
    stage = training_stage(MODELS[model])
    read = {table.name for table in (*stage.inputs, *stage.optional)}
    for needed in builds_on(model, night.config):
        other = training_stage(MODELS[needed])
        read |= {table.name for table in (*other.inputs, *other.optional)}
    versions = {name: version for name, version in inputs.versions.items() if name in read}
    trials = Trials.of(night, model, versions, folder)
    until, space = time.monotonic() + seconds, _space(night, model, trials, untuned)
    if not space.training or not program(model).rates(night.config):
        return _best_of(trials, space, seconds)
    # What its training learns is told by the errors of its ratings, what follows by its lists.
    note, version, taken = _best_of(trials, Space(space.training, {}, space.effort), seconds / 2, by_errors=True)
    if not space.after:
        return note, version, taken
    trials = replace(trials, night=replace(night, config=config_with(night.config, taken)))
    lists, version, more = _best_of(trials, Space({}, space.after, {}), until - time.monotonic())
    return f"{note}; {lists}", version, taken | more


def _best_of(trials: Trials, space: Space, seconds: float, by_errors: bool = False) -> tuple[str, int, Settings]:
    """Tries settings by lists, or by the errors of predicted ratings; see ``_tune``."""
    night, model = trials.night, trials.model
    values, gate = _values(night), night.config.gate
    tried: list[Tried] = []

    def attempt(settings: Settings) -> Reached:
        night.warehouse.fence()
        done = trials.run(settings, config_with(night.config, settings), by_errors=by_errors)
        tried.append(done)
        gains = done.gains
        if gains is None:
            what = "ratings held out" if by_errors else f"{gate.metric}@{gate.k}"
            raise UserError(f"{model} has no {what}", where="gate.metric", fix="choose another metric")
        value = -done.value(gate) if by_errors else done.value(gate)
        return Reached(value, done.seconds, done.judging, gains.gains, gains.counts)

    start = {key: values[key] for key in (*space.training, *space.after)}
    found = halving(space, start, attempt, seconds, time.monotonic, SEED)
    at = datetime.now(UTC)
    in_full = [one for one in tried if one.settings.keys() == start.keys()]
    write_tried(night, model, trials.last_day, in_full, at)
    return _kept_in_table(night, model, trials.last_day, found, in_full, start, sum(t.seconds for t in tried), at)


def _space(night: Night, model: str, trials: Trials, untuned: Config) -> Space:
    """What there is to try of a model, parted by whether it needs another training."""
    config, values = night.config, _values(night)
    untouched = ranges(untuned, model)
    as_now = trials.trained_as(config)

    def needs_training(key: str) -> bool:
        others = [value for value in untouched[key] if value != values[key]]
        return bool(others) and trials.trained_as(config_with(config, {key: others[0]})) != as_now

    training = {key: tried for key, tried in untouched.items() if needs_training(key)}
    after = {key: tried for key, tried in untouched.items() if key not in training}
    effort = {
        dotted: int(values[dotted])
        for dotted, _, one in walked(config)
        if dotted.startswith(f"{model}.") and one.metadata.get("effort") and dotted not in training
    }
    return Space(training, after, effort)


def _kept_in_table(
    night: Night,
    model: str,
    last_day: date,
    found: Found,
    in_full: Sequence[Tried],
    start: Settings,
    seconds: float,
    at: datetime,
) -> tuple[str, int, Settings]:
    gate = night.config.gate
    mine, before = (next(t.gains for t in in_full if t.settings == settings) for settings in (found.settings, start))
    if mine is None or before is None:
        raise UserError(f"{model} was not judged by users", where=str(last_day))
    _, low, high = mine.beyond(before)
    taken = found.settings != start and low > 0
    name = in_full[0].metric(gate)
    metric, sign = (name, -1) if in_full[0].by_errors else (f"{name}@{gate.k}", 1)
    value, value_before = sign * found.reached.value, sign * found.before.value
    row = (
        at, night.run_date, last_day, model, json.dumps(found.settings, sort_keys=True), metric,
        value, value_before, low, high, taken, found.n_full, found.n_short, seconds,
    )  # fmt: skip
    version = direct.append([dict(zip(TUNED.column_names, row, strict=True))], night.warehouse, TUNED)
    log_event(
        "tuned", model=model, metric=metric, value=round(value, 4), before=round(value_before, 4),
        low=round(low, 4), high=round(high, 4), taken=taken, tried=found.n_full, short=found.n_short,
        settings=found.settings,
    )  # fmt: skip
    verdict = "taken over" if taken else "not taken over"
    note = f"{model} {metric} {value_before:.4f} -> {value:.4f} {verdict}"
    return note, version, found.settings if taken else {}


def _taken_over(night: Night) -> Settings:
    """What was taken over of the night's models, the latest of each."""
    found: Settings = {}
    for row in _tuned(night):
        if row["taken"] and row["model"] in night.config.models:
            found |= _kept(row["model"], json.loads(row["settings"]), night.config)
    return found


def _kept(model: str, settings: Settings, config: Config) -> Settings:
    """Those of the settings that are still tried, and that nobody has set since."""
    open_to = ranges(config, model)
    return {key: value for key, value in settings.items() if key in open_to}


def _values(night: Night) -> Settings:
    return {dotted: value for dotted, value, _ in walked(night.config)}


def _tuned(night: Night) -> list[Any]:
    """The rows of ``tuned`` up to the night, in order of time."""
    found = direct.rows_of(night.warehouse, TUNED)
    return sorted((row for row in found if row[RUN_DATE] <= night.run_date), key=lambda row: row["tuned_at"])
