"""Checks before anything is read or written: what can be refused early is refused with every table as it was."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sparkrec.errors import UserError
from sparkrec.evaluation.split import declared_cutoff
from sparkrec.models import MODELS
from sparkrec.models.program import program
from sparkrec.pipeline.probes import check_storage
from sparkrec.retrieval.approximate import require_faiss
from sparkrec.settings.checks import excluded_attributes
from sparkrec.settings.config import Config
from sparkrec.settings.format_files import load_format
from sparkrec.settings.formats import LogFormat
from sparkrec.settings.sections import TopKConfig
from sparkrec.storage.access import stores_of
from sparkrec.warehouse.catalog import check_name
from sparkrec.warehouse.location import Warehouse

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def preflight(spark: SparkSession, config: Config, stages: Sequence[str], as_of: datetime) -> None:
    """Refuses a night that cannot work.

    Raises:
        UserError: A path or format is missing, the hold-out is empty, the warehouse cannot be written, or workers
            cannot be launched.
    """
    _require(config.warehouse.path, "warehouse.path")
    Warehouse(config.warehouse.path)  # refuses a path that not every reader takes for the same place
    stores_of(config.logs.places)
    _require(config.logs.format, "logs.format")
    fmt = load_format(config.logs.format)
    _check_attributes(config.topk, fmt)
    for model in config.models:
        program(model).check(config, fmt)
    if config.topk.index != "exact" and "topk" in stages:
        require_faiss(config.topk.index)
    if "ingest" in stages:
        _require(config.logs.path or config.logs.table, "logs.path")
    declared_cutoff(config.evaluation, as_of)
    if config.warehouse.catalog is not None:
        check_name(config.warehouse.catalog)
    check_storage(spark, config.warehouse.path, config.storage)
    if config.train.ranks > 1 and any(f"train_{model}" in stages and _uses_ranks(config, model) for model in MODELS):
        _check_workers(spark, config)


def _uses_ranks(config: Config, model: str) -> bool:
    return MODELS[model].on_ranks and program(model).uses_ranks(config)


def _check_attributes(topk: TopKConfig, fmt: LogFormat) -> None:
    """Refuses to leave out items by an attribute that they do not have."""
    declared = fmt.item_columns()
    unknown = [f"{name}={value}" for name, value in excluded_attributes(topk) if name not in declared]
    if unknown:
        known = ", ".join(declared) or "none"
        raise UserError("no such attribute of items", where=f"topk.exclude={unknown}", fix=f"{fmt.name} has: {known}")


def _require(value: str, key: str) -> None:
    if not value:
        raise UserError(f"{key} is not set", fix=f"add {key}=… to the command or the configuration file")


def _check_workers(spark: SparkSession, config: Config) -> None:
    from sparkrec.ranks.launch import check_slots

    if importlib.util.find_spec("horovod") is None:
        raise UserError(
            "Horovod is not installed", where=f"train.ranks={config.train.ranks}", fix="make setup, or train.ranks=1"
        )
    check_slots(spark, config.train)
