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
from typing import Any, Dict, List, Optional

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sparkrec.errors import UserError
from sparkrec.models import MODELS, OURS, SHIPPED
from sparkrec.models.model import named
from sparkrec.models.sections import ModelSections
from sparkrec.settings.checks import check
from sparkrec.settings.setting import (
    COUNT,
    COUNT_OR_NONE,
    COUNTS,
    INNER_SHARE,
    MARGIN,
    NOT_NEGATIVE,
    PAIR,
    POSITIVE,
    SEED,
    SHARE,
    Bounds,
    section,
    setting,
)


@dataclass(frozen=True)
class LogsConfig:
    """Where the raw logs are and how they are written."""

    path: str = setting("", "file or folder of raw logs, plain or .gz; any file system that Spark reaches")
    format: str = setting(
        "", "a name in conf/formats (reviews, invoices, sessions, ratings, …), or the path of a YAML file"
    )
    items_path: Optional[str] = setting(None, "file of item attributes, as the format declares it")
    users_path: Optional[str] = setting(None, "file of user attributes, as the format declares it")
    timezone: Optional[str] = setting(
        None, "whose days the nights, sessions and yesterday are, e.g. Europe/London; null: UTC"
    )


@dataclass(frozen=True)
class WarehouseConfig:
    """Where the Delta tables, models and snapshots live."""

    path: str = setting("", "folder of the Delta tables, models and snapshots; every executor must reach it")
    lock_expiry_s: float = setting(
        300.0,
        "seconds, 10 to 86400; a lock that its night has not renewed for so long is taken over",
        Bounds(10, 86_400),
    )


@dataclass(frozen=True)
class SparkConfig:
    """Settings of the Spark session; under spark-submit those given there win."""

    master: Optional[str] = setting(None, "null: what spark-submit says, else local[*]")
    app_name: str = setting("sparkrec", "name shown by the cluster")
    conf: Dict[str, str] = setting(
        {}, 'further Spark settings, e.g. {spark.sql.shuffle.partitions: "200"}; spark-submit\'s own win'
    )


@dataclass(frozen=True)
class IngestConfig:
    """How logs are taken in."""

    on_changed_file: str = setting(
        "refuse",
        "a file that was taken in before and has changed since: refuse | replace its rows",
        choices=["refuse", "replace"],
    )
    max_quarantine_share: float = setting(
        0.5,
        "refuse the night when a larger share is invalid of all new rows, or of a file's (from 5 invalid rows on); "
        "0 to 1",
        SHARE,
    )
    again: List[str] = setting(
        [],
        "files that are read again though they are unchanged, as the table files names them, or [all]; this once: "
        "sparkrec ingest --again FILE",
    )
    allow_empty_day: bool = setting(False, "run a night whose run_date has no events")
    max_quantity: float = setting(
        1_000_000.0, "units; rows with more, or with less than its negative, are quarantined", POSITIVE
    )
    min_ts: str = setting("1990-01-01", "UTC; rows before it are quarantined (a wrong time unit?)")


@dataclass(frozen=True)
class SessionsConfig:
    """How events become sessions."""

    by: str = setting(
        "gap", "gap: a user's inactivity | session_id: the log's own session id", choices=["gap", "session_id"]
    )
    gap_minutes: float = setting(30.0, "minutes without an event that end a session", POSITIVE)
    min_length: int = setting(2, "events; shorter sessions are left out", COUNT)
    max_length: int = setting(200, "events; longer sessions are split into pieces of this length", PAIR)
    collapse_repeats: bool = setting(True, "immediate repeats of an item become one event")


@dataclass(frozen=True)
class BasketsConfig:
    """How purchases become baskets."""

    by: str = setting(
        "window",
        "basket_id: the log's own basket id | window: a user's purchases within window_hours",
        choices=["basket_id", "window"],
    )
    window_hours: float = setting(24.0, "hours", POSITIVE)
    min_items: int = setting(2, "distinct items; smaller baskets are left out", COUNT)
    max_items: int = setting(1000, "distinct items; a larger basket keeps its first ones", COUNT)


@dataclass(frozen=True)
class UserItemConfig:
    """How events become the user-item matrix."""

    rating: str = setting("last", "several ratings of one item by one user: last | mean", choices=["last", "mean"])
    half_life_days: Optional[float] = setting(
        None, "days in which the weight of an event halves; null: never", POSITIVE
    )


@dataclass(frozen=True)
class SupportConfig:
    """Smallest support; items and users below it are filtered to a fixed point."""

    min_item_events: int = setting(
        5, "items with fewer events are not trained on, to a fixed point with", COUNT_OR_NONE
    )
    min_user_events: int = setting(
        1, "users with fewer events; prepare says how many; see docs/architecture.md for who lists them", COUNT_OR_NONE
    )


@dataclass(frozen=True)
class TextConfig:
    """Vectors of the items' texts."""

    method: str = setting(
        "none",
        "none | tfidf (with a truncated SVD) | word2vec (the mean of the words' vectors)",
        choices=["none", "tfidf", "word2vec"],
    )
    columns: List[str] = setting([], "attributes of items, joined; []: the format's title")
    dim: int = setting(64, "dimensions of the vectors", COUNT)
    min_df: int = setting(2, "a word counts when so many items have it (word2vec: when it occurs so often)", COUNT)
    vocabulary: int = setting(20000, "tfidf: words at most, the most frequent", COUNT)
    seed: int = setting(1, bounds=SEED)


@dataclass(frozen=True)
class PrepareConfig:
    """Preparation of the training tables."""

    sessions: SessionsConfig = section(SessionsConfig)
    baskets: BasketsConfig = section(BasketsConfig)
    user_item: UserItemConfig = section(UserItemConfig)
    support: SupportConfig = section(SupportConfig)
    text: TextConfig = section(TextConfig, "vectors of the items' texts, in the table item_vectors")


@dataclass(frozen=True)
class TrainConfig:
    """Workers of the neural models."""

    ranks: int = setting(1, "Horovod workers, one task slot each; 1 trains in the driver, without a launcher", COUNT)
    start_timeout_s: int = setting(120, "seconds for all workers to start", COUNT)
    gloo_timeout_s: int = setting(
        60, "seconds that a worker waits for the others to come; a busy one is waited for", COUNT
    )
    threads_per_rank: int = setting(
        0, "threads of a worker; 0: the machine's cores divided by the ranks on it", COUNT_OR_NONE
    )
    snapshot_files: int = setting(12, "files of a snapshot; a multiple of every rank count in use", COUNT)
    device: str = setting("auto", "auto: a GPU where there is one | cpu | cuda", choices=["auto", "cpu", "cuda"])
    matmul_precision: str = setting(
        "highest",
        "of float32 products: highest | high (TF32 on GPUs) | medium (bfloat16 where that is fast)",
        choices=["highest", "high", "medium"],
    )
    cuda_graphs: bool = setting(
        False, "true: the plain GRU's step on a GPU is recorded once and replayed; with one rank"
    )
    shared_memory: bool = setting(True, "ranks on one machine exchange messages in its memory; false: through Horovod")


@dataclass(frozen=True)
class EvaluationConfig:
    """Temporal hold-out. Of cutoff, holdout_quantile and holdout_days the first that is set counts."""

    cutoff: Optional[str] = setting(None, "UTC timestamp: events from here on are held out")
    holdout_quantile: Optional[float] = setting(
        None, "quantile of event time (session start for the GRU) from which on events are held out", INNER_SHARE
    )
    holdout_days: float = setting(7.0, "the last days are held out", POSITIVE)
    k: List[int] = setting([10, 20], "lengths of the lists that are judged", COUNTS)
    ties: str = setting(
        "conservative",
        "a next item's rank among equal scores: conservative (last) | standard (first) | median",
        choices=["conservative", "standard", "median"],
    )
    recent_days: float = setting(14.0, "days; window of the recent-popularity baseline", POSITIVE)
    cold_below: int = setting(
        5,
        "users with fewer items, and items with fewer users, before the hold-out are cold: judged apart too",
        COUNT_OR_NONE,
    )
    refit: bool = setting(True, "publish from a model trained on all data, not on the hold-out's training part")
    min_users: int = setting(
        20,
        "users (sessions, baskets) with something held out; with fewer nothing is judged, and the night says so",
        COUNT,
    )
    min_pairs: int = setting(30, "things that they took; likewise", COUNT)


@dataclass(frozen=True)
class GateConfig:
    """What a model must reach on the hold-out to be published."""

    enabled: bool = setting(True, "false: every model is published")
    metric: str = setting("recall", "recall | mrr", choices=["recall", "mrr"])
    k: int = setting(20, "length of the list; one of evaluation.k", COUNT)
    below_popularity: float = setting(0.5, "share that the metric may be below recent popularity's", MARGIN)
    below_last: float = setting(
        0.2,
        "share that it may be below that of the model published last, by itself and as a multiple of popularity's",
        MARGIN,
    )
    min_users_share: float = setting(
        0.9, "users with a list, of those who took something that prepare.support keeps; 0 to 1", SHARE
    )
    unjudged: str = setting(
        "popularity",
        "of a model that could not be judged: popularity (of late, in its place) | model (all the same)",
        choices=["popularity", "model"],
    )
    patience: int = setting(
        3, "nights in a row that a model is held back until its message says so loudly; 0: never", COUNT_OR_NONE
    )


@dataclass(frozen=True)
class TopKConfig:
    """The published lists."""

    k: int = setting(20, "length of the published lists", COUNT)
    fallback: bool = setting(
        True, "lists that a model leaves short are filled up with what was popular of late, and say so"
    )
    similar_items: bool = setting(True, "als, two_tower: the items beside each item too, into topk_<model>_items")
    similar_users: bool = setting(
        False, "als, two_tower: the users beside each user, into topk_<model>_users; grows with users squared"
    )
    exclude: List[str] = setting(
        [], "[attribute=value, …] of the table items: items with one of them are on no list, e.g. [available=false]"
    )
    index: str = setting(
        "exact",
        "exact | hnsw | ivf: users' and sessions' lists by an approximate index of faiss (sparkrec[approximate])",
        choices=["exact", "hnsw", "ivf"],
    )
    min_recall: float = setting(
        0.95, "hnsw, ivf: where it finds fewer of the exact lists' items, the exact lists are published", SHARE
    )
    hnsw_neighbours: int = setting(32, "hnsw: edges of each item", PAIR)
    hnsw_search: int = setting(256, "hnsw: candidates kept while searching", COUNT)
    ivf_cells: int = setting(
        0, "ivf: cells that the items are divided into; 0: four times the root of their number", COUNT_OR_NONE
    )
    ivf_probes: int = setting(16, "ivf: cells that are searched", COUNT)
    block_mb: int = setting(64, "MB; memory of one block of scores", COUNT)
    similar_index: str = setting(
        "exact",
        "exact | lsh: the items beside items by MLlib's random projections; refused below min_recall",
        choices=["exact", "lsh"],
    )
    lsh_tables: int = setting(48, "lsh: hash tables; more find more", COUNT)
    lsh_hashes: int = setting(10, "lsh: projections of a table; more leave fewer candidates", COUNT)
    pass_mb: int = setting(
        1024, "MB; item vectors that a worker searches at once: more items take several passes", COUNT
    )


@dataclass(frozen=True)
class ReportConfig:
    """The page that says what a night did."""

    nightly: bool = setting(
        True, "a night that reaches topk, or fails, writes it as its last act; false: only sparkrec report does"
    )
    path: Optional[str] = setting(None, "folder of the pages, <run_date>.html each; null: reports/ in the warehouse")
    nights: int = setting(30, "the metrics go back so many nights", COUNT)
    users: int = setting(4, "users whose lists are shown", COUNT_OR_NONE)


@dataclass(frozen=True)
class MaintenanceConfig:
    """The care of the warehouse at the end of each night."""

    enabled: bool = setting(True, "false: a night ends with topk; sparkrec stage maintain still does it")
    compact_files: int = setting(
        32, "a table is compacted when it would have so many files fewer; 0: never", COUNT_OR_NONE
    )
    file_mb: int = setting(128, "MB; files smaller than half of it are merged, into files up to it", COUNT)
    retention_hours: float = setting(
        168.0, "hours that superseded files stay; never less than the longest attempt so far and", NOT_NEGATIVE
    )
    margin_hours: float = setting(24.0, "hours more", NOT_NEGATIVE)
    log_retention_days: int = setting(30, "days that the tables' history stays", COUNT)
    keep_nights: int = setting(30, "nights whose models and snapshots are kept; 0: all", COUNT_OR_NONE)
    keep_list_nights: int = setting(
        90,
        "nights whose lists (rules, groups, pages of the report) are kept, at least keep_nights; 0: all",
        COUNT_OR_NONE,
    )


_WITH_USERS = [model.name for model in MODELS.values() if "users" in model.beside and model.measure == "cosine"]


@dataclass(frozen=True)
class UserGroupsConfig:
    """Groups of users by k-means."""

    enabled: bool = setting(
        False, "true: the night makes user_groups, and cold users' lists end with what is popular in their group"
    )
    vectors: str = setting(
        "rfm",
        "what tells users apart: rfm (recency, frequency, value) | als | two_tower (of the night)",
        choices=["rfm", *_WITH_USERS],
    )
    method: str = setting("kmeans", "kmeans | bisecting (hierarchical)", choices=["kmeans", "bisecting"])
    groups: List[int] = setting(
        [3, 4, 5, 6, 8], "numbers of groups that are tried; the silhouette chooses", Bounds(2, least=1)
    )
    sample: int = setting(20000, "users that the silhouette is measured on", PAIR)
    profile: str = setting("", "attribute of items whose values describe a group; empty: the format's title")
    seed: int = setting(1, bounds=SEED)


@dataclass(frozen=True)
class Config(ModelSections):
    """The whole configuration of a night."""

    logs: LogsConfig = section(LogsConfig)
    warehouse: WarehouseConfig = section(WarehouseConfig)
    spark: SparkConfig = section(SparkConfig)
    ingest: IngestConfig = section(IngestConfig)
    prepare: PrepareConfig = section(PrepareConfig)
    models: List[str] = setting(list(SHIPPED), "the models to train")
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
    from sparkrec.settings.formats import load_format

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
