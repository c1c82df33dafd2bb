"""Settings that do not go together; what each may be stands beside it (``setting``)."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING

from sparkrec.errors import UserError
from sparkrec.models import MODELS
from sparkrec.models.model import can_propose
from sparkrec.settings.setting import check_declared
from sparkrec.zones import zone_of

if TYPE_CHECKING:
    from sparkrec.settings.config import Config
    from sparkrec.settings.sections import TopKConfig


def check(config: Config) -> None:
    """Refuses settings outside of their range, and settings that do not go together.

    Raises:
        UserError: The first of them.
    """
    unknown = [m for m in config.models if m not in MODELS]
    if unknown:
        raise UserError("unknown model", where=f"models={config.models}", fix=f"choose among {', '.join(MODELS)}")
    if not config.models or len(set(config.models)) < len(config.models):
        raise UserError("wrong configuration value", where=f"models={config.models}", fix="one or more, each once")
    check_declared(config)
    for model in MODELS:
        checked = getattr(getattr(config, model), "check", None)
        if checked is not None:
            checked()
    _check_pairs(config)
    image = config.prepare.image
    if image.column and not image.weights:
        where, fix = f"prepare.image.column={image.column}", f"set prepare.image.weights to those of {image.network}"
        raise UserError("images need the weights of a pretrained network", where=where, fix=fix)
    tune_nights(config.tune)
    zone_of(config.logs.timezone)
    if config.logs.path and config.logs.table:
        where = f"logs.path={config.logs.path}, logs.table={config.logs.table}"
        raise UserError("logs are either files or a table", where=where, fix="leave one of them out")
    excluded_attributes(config.topk)
    if config.gate.enabled and config.gate.k not in config.evaluation.k:
        fix = f"one of evaluation.k={config.evaluation.k}"
        raise UserError("the gate looks at a list length that is not judged", where=f"gate.k={config.gate.k}", fix=fix)
    if config.train.snapshot_files % config.train.ranks:
        raise UserError(
            "train.snapshot_files must be a multiple of train.ranks",
            where=f"train.snapshot_files={config.train.snapshot_files}, train.ranks={config.train.ranks}",
            fix=f"for example train.snapshot_files={config.train.ranks * 4}",
        )
    lists, models = config.maintenance.keep_list_nights, config.maintenance.keep_nights
    if lists and (not models or lists < models):
        raise UserError(  # a warm start takes published models alone
            "lists must be kept as long as models",
            where=f"maintenance.keep_list_nights={lists}, maintenance.keep_nights={models}",
            fix="raise maintenance.keep_list_nights, or set it to 0",
        )
    _check_models(config)


def _check_pairs(config: Config) -> None:
    """Refuses lengths of which the smallest is above the largest, and a date that is none."""
    sessions, baskets = config.prepare.sessions, config.prepare.baskets
    for key, low, high in (
        ("prepare.sessions.m{}_length", sessions.min_length, sessions.max_length),
        ("prepare.baskets.m{}_items", baskets.min_items, baskets.max_items),
    ):
        if low > high:
            where = f"{key.format('in')}={low}, {key.format('ax')}={high}"
            raise UserError("nothing is as long as that", where=where, fix=f"lower {key.format('in')}")
    try:
        date.fromisoformat(config.ingest.min_ts)
    except ValueError as error:
        where = f"ingest.min_ts={config.ingest.min_ts}"
        raise UserError("wrong configuration value", where=where, fix="a date, YYYY-MM-DD") from error


def tune_nights(tune: str) -> int | None:
    """After how many nights a model is tuned again: 0: never again, None: not at all.

    Raises:
        UserError: ``tune`` is none of its choices.
    """
    plain = {"off": None, "false": None, "first": 0, "weekly": 7}  # YAML takes off for false
    said = " ".join(tune.lower().split())
    every = re.fullmatch(r"every (\d{1,4}) nights?", said)
    if every and int(every[1]) > 0:
        return int(every[1])
    if said not in plain:
        raise UserError(
            "wrong configuration value", where=f"tune={tune}", fix="one of off, first, weekly, every N nights"
        )
    return plain[said]


def _check_models(config: Config) -> None:
    """Refuses models without the models that they build on."""
    for model in config.models:
        missing = [needed for needed in MODELS[model].needs if needed not in config.models]
        if missing:
            fix = f"add {', '.join(missing)} to models"
            raise UserError(f"{model} builds on {', '.join(missing)}", where=f"models={config.models}", fix=fix)
    if config.user_groups.enabled and config.user_groups.vectors not in ("rfm", *config.models):
        where = f"user_groups.vectors={config.user_groups.vectors}, models={config.models}"
        raise UserError("groups of users need a model's vectors", where=where, fix="train that model, or say rfm")
    if not any(MODELS[model].blends for model in config.models):
        return
    able = [name for name, model in MODELS.items() if can_propose(model)]
    mine = [name for name in able if name in config.models]
    strange = [name for name in config.hybrid.models if name not in mine]
    if strange or not mine:
        where = f"hybrid.models={config.hybrid.models}, models={config.models}"
        fix = f"choose among {', '.join(mine or able)}"
        raise UserError("the hybrid blends models of the night that have lists for users", where=where, fix=fix)


def excluded_attributes(topk: TopKConfig) -> list[tuple[str, str]]:
    """What ``topk.exclude`` says: attribute and value of the items that no list may hold.

    Raises:
        UserError: A text is not attribute=value.
    """
    parts = [text.partition("=") for text in topk.exclude]
    if not all(name and equals and value for name, equals, value in parts):
        fix = "attribute=value, an attribute of the table items, e.g. [available=false]"
        raise UserError("wrong configuration value", where=f"topk.exclude={topk.exclude}", fix=fix)
    return [(name, value) for name, _, value in parts]
