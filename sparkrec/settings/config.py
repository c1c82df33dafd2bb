"""Configuration: frozen dataclasses, filled by OmegaConf.

Order of precedence, later wins: the defaults below, ``conf/base.yaml``, the ``defaults:`` section of the log
format, the environment's file (``--conf``), ``key=value`` overrides. An unknown key or a wrong type is an error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sparkrec.errors import UserError
from sparkrec.models import MODELS, OURS, SHIPPED
from sparkrec.models.model import named
from sparkrec.models.sections import ModelSections
from sparkrec.settings.checks import check
from sparkrec.settings.sections import (
    EvaluationConfig,
    GateConfig,
    IngestConfig,
    LogsConfig,
    MaintenanceConfig,
    PrepareConfig,
    ReportConfig,
    SparkConfig,
    StorageConfig,
    TopKConfig,
    TrainConfig,
    UserGroupsConfig,
    WarehouseConfig,
)
from sparkrec.settings.setting import POSITIVE, section, setting, walked


@dataclass(frozen=True)
class Config(ModelSections):
    """The whole configuration of a night."""

    logs: LogsConfig = section(LogsConfig)
    warehouse: WarehouseConfig = section(WarehouseConfig)
    storage: StorageConfig = section(StorageConfig, "for logs and warehouse; docs/storage.md")
    spark: SparkConfig = section(SparkConfig)
    ingest: IngestConfig = section(IngestConfig)
    prepare: PrepareConfig = section(PrepareConfig)
    models: List[str] = setting(list(SHIPPED), "the models to train")
    tune: str = setting(
        "off",
        "off | first (until a model has been tuned) | weekly | every N nights: settings are tried on the night before "
        "the hold-out begins, and those that win by more than chance are used from then on; yours stay as you set them",
    )
    tune_minutes: float = setting(
        10.0, "minutes that the models' settings are tried for in a night, together", POSITIVE
    )
    user_groups: UserGroupsConfig = section(UserGroupsConfig)
    train: TrainConfig = section(TrainConfig)
    evaluation: EvaluationConfig = section(
        EvaluationConfig, "of cutoff, holdout_quantile and holdout_days the first that is set counts"
    )
    gate: GateConfig = section(
        GateConfig,
        "what a model must reach on the hold-out to be published; else the lists of the night before stay current",
    )
    topk: TopKConfig = section(TopKConfig)
    report: ReportConfig = section(
        ReportConfig, "one HTML page for each night; it holds samples of refused rows and of users' lists"
    )
    maintenance: MaintenanceConfig = section(MaintenanceConfig, "the last stage of each night")


@dataclass(frozen=True)
class NoSettings:
    """The section of a model from outside that has none."""


_SECRET = re.compile(r"secret|password|passwd|token|credential|access[._]?key|account[._]?key", re.IGNORECASE)
_LOGIN = re.compile(r"(\w://)[^/@\s]+@")  # user:password@ in an address


def conf_dir() -> Traversable:
    """The shipped ``conf/`` folder: the checkout's, or the copy in the installed package or in the shipped zip."""
    packaged = resources.files("sparkrec") / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent.parent / "conf"


def load_config(path: Optional[str] = None, overrides: Optional[List[str]] = None) -> Config:
    """Reads the configuration of a night.

    Args:
        path: The environment's YAML file, or None for the defaults alone.
        overrides: ``key=value`` settings, e.g. ``["gru.epochs=2", "models=[als]"]``.

    Raises:
        UserError: A missing file, an unknown key, a wrong type or a value outside of its choices.
    """
    last = _parse_overrides(overrides or [])
    environment = _read_yaml(Path(path)) if path else OmegaConf.create()
    # The format decides on a layer of its own, so it is looked up before the layers are merged.
    format_name = OmegaConf.select(last, "logs.format") or OmegaConf.select(environment, "logs.format") or ""
    layers = [
        (_read_yaml(conf_dir() / "base.yaml"), "conf/base.yaml"),
        (OmegaConf.create(_format_defaults(str(format_name))), f"defaults of format {format_name}"),
        (environment, str(path)),
        (last, "command line"),
    ]
    merged = OmegaConf.structured(config_class(), flags={"readonly": False})
    for layer, where in layers:
        merged = _merge(merged, layer, where)
    config: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
    check(config)
    return config


def config_class() -> type[Config]:
    """``Config``, with a section for each model that another package brings."""
    outside = [model for model in MODELS.values() if model not in OURS]
    if not outside:
        return Config
    for model in outside:
        if model.name in Config.__dataclass_fields__:
            fix = "give the model another name"
            raise UserError("a model is named as a section of the configuration", where=model.name, fix=fix)
    sections = [(model.name, named(model.settings) if model.settings else NoSettings) for model in outside]
    fields = [(name, section, field(default_factory=section)) for name, section in sections]
    return dataclasses.make_dataclass("Config", fields, bases=(Config,), frozen=True)


def config_with(config: Config, settings: Mapping[str, Any]) -> Config:
    """The configuration with other values of some settings, by their dotted names.

    Raises:
        UserError: Values that do not go together, or are outside of their bounds.
    """
    changed: Any = config
    for dotted, value in settings.items():
        changed = _replaced(changed, dotted.split("."), value)
    check(changed)
    return changed  # type: ignore[no-any-return]


def own_settings(config: Config) -> set[str]:
    """The dotted names of the settings that somebody has set: those that are not as shipped for the log's format."""
    shipped = load_config(None, [f"logs.format={json.dumps(config.logs.format)}"] if config.logs.format else [])
    plain = {dotted: value for dotted, value, _ in walked(shipped)}
    return {dotted for dotted, value, _ in walked(config) if plain.get(dotted) != value}


def _replaced(settings: Any, path: List[str], value: Any) -> Any:
    head, *rest = path
    inner = _replaced(getattr(settings, head), rest, value) if rest else value
    return dataclasses.replace(settings, **{head: inner})


def config_dict(config: Any) -> Dict[str, Any]:
    """A configuration dataclass as plain nested dictionaries."""
    return dataclasses.asdict(config)


def recorded_config(config: Config) -> Dict[str, Any]:
    """The configuration as the ledger and the logs may hold it: secrets that someone wrote into it are masked."""

    def masked(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: masked(name, inner) for name, inner in value.items()}
        if isinstance(value, str):
            return "***" if value and _SECRET.search(key) else _LOGIN.sub(r"\1***@", value)
        return value

    return {name: masked(name, value) for name, value in config_dict(config).items()}


def config_hash(*parts: Any) -> str:
    """A short hash of configuration sections (dataclasses or JSON-able values), equal for equal settings."""
    plain = [dataclasses.asdict(p) if dataclasses.is_dataclass(p) and not isinstance(p, type) else p for p in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _read_yaml(path: Traversable) -> DictConfig:
    if not path.is_file():
        raise UserError("no such configuration file", where=str(path), fix="check --conf")
    try:
        loaded = OmegaConf.create(path.read_text(encoding="utf-8"))
    except Exception as error:  # the YAML parser raises many kinds
        raise UserError("configuration file is not valid YAML", where=str(path), fix=str(error)) from error
    if not isinstance(loaded, DictConfig):
        raise UserError("configuration file must be a mapping", where=str(path), fix="write key: value lines")
    return loaded


def _parse_overrides(overrides: List[str]) -> DictConfig:
    for item in overrides:
        if "=" not in item or item.startswith(("=", "-")):
            raise UserError("setting is not key=value", where=item, fix="for example gru.epochs=5")
    try:
        return OmegaConf.from_dotlist(overrides)
    except Exception as error:
        raise UserError("setting cannot be read", where=" ".join(overrides), fix=str(error)) from error


def _format_defaults(name: str) -> Dict[str, Any]:
    if not name:
        return {}
    from sparkrec.settings.format_files import load_format

    return load_format(name).defaults


def _merge(base: Any, layer: DictConfig, where: str) -> Any:
    try:
        return OmegaConf.merge(base, layer)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        where = f"{key} in {where}" if key else where
        if "not in" in str(error):
            raise UserError("unknown configuration key", where=where, fix="see conf/base.yaml for the keys") from error
        reason = str(error).splitlines()[0]
        raise UserError("wrong configuration value", where=where, fix=reason) from error
