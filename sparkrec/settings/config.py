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
from sparkrec.models import MODELS, OURS
from sparkrec.models.model import named
from sparkrec.settings.checks import check
from sparkrec.settings.models import AlsConfig as AlsConfig
from sparkrec.settings.models import Content2VecConfig as Content2VecConfig
from sparkrec.settings.models import ContentConfig as ContentConfig
from sparkrec.settings.models import GruConfig as GruConfig
from sparkrec.settings.models import HybridConfig as HybridConfig
from sparkrec.settings.models import ItemNeighboursConfig as ItemNeighboursConfig
from sparkrec.settings.models import MetaProd2VecConfig as MetaProd2VecConfig
from sparkrec.settings.models import Prod2VecConfig as Prod2VecConfig
from sparkrec.settings.models import RulesConfig as RulesConfig
from sparkrec.settings.models import SessionHybridConfig as SessionHybridConfig
from sparkrec.settings.models import SessionNeighboursConfig as SessionNeighboursConfig
from sparkrec.settings.models import TwoTowerConfig as TwoTowerConfig
from sparkrec.settings.models import UserGroupsConfig as UserGroupsConfig
from sparkrec.settings.models import UserNeighboursConfig as UserNeighboursConfig


@dataclass(frozen=True)
class LogsConfig:
    """Where the raw logs are and how they are written."""

    path: str = ""  # a file or a folder of files, plain or .gz
    format: str = ""  # a name in conf/formats, or the path of a YAML file
    items_path: Optional[str] = None  # attribute file of items, as the format declares it
    users_path: Optional[str] = None  # attribute file of users
    timezone: Optional[str] = None  # whose days the nights are, e.g. Europe/London; None: UTC


@dataclass(frozen=True)
class WarehouseConfig:
    """Where the Delta tables, models and snapshots live."""

    path: str = ""
    lock_expiry_s: float = 300.0  # a lock that its night has not renewed for so long is taken over


@dataclass(frozen=True)
class SparkConfig:
    """Settings of the Spark session; under spark-submit those given there win."""

    master: Optional[str] = None  # None: what spark-submit says, else local[*]
    app_name: str = "sparkrec"
    conf: Dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class IngestConfig:
    """How logs are taken in."""

    on_changed_file: str = "refuse"  # refuse | replace
    max_quarantine_share: float = 0.5  # refuse when more of the rows than this are invalid, of the batch or of a file
    again: List[str] = field(default_factory=list)  # files that are read again, by their names in the table; or all
    allow_empty_day: bool = False  # run a night whose run_date has no events
    max_quantity: float = 1_000_000.0  # a larger one, or one below its negative, is quarantined
    min_ts: str = "1990-01-01"  # earlier timestamps are quarantined (wrong unit?)


@dataclass(frozen=True)
class SessionsConfig:
    """How events become sessions."""

    by: str = "gap"  # gap: inactivity of a user | session_id: the log's own
    gap_minutes: float = 30.0
    min_length: int = 2
    max_length: int = 200  # longer ones are split into pieces of this length
    collapse_repeats: bool = True  # immediate repeats of an item become one event


@dataclass(frozen=True)
class BasketsConfig:
    """How purchases become baskets."""

    by: str = "window"  # basket_id: the log's own | window: a user's purchases within window_hours
    window_hours: float = 24.0
    min_items: int = 2
    max_items: int = 1000  # a longer basket keeps its first max_items


@dataclass(frozen=True)
class UserItemConfig:
    """How events become the user-item matrix."""

    rating: str = "last"  # last | mean
    half_life_days: Optional[float] = None  # the weight of an event halves with each


@dataclass(frozen=True)
class SupportConfig:
    """Smallest support; items and users below it are filtered to a fixed point."""

    min_item_events: int = 5
    min_user_events: int = 1


@dataclass(frozen=True)
class TextConfig:
    """Vectors of the items' texts."""

    method: str = "none"  # none | tfidf (with a truncated SVD) | word2vec
    columns: List[str] = field(default_factory=list)  # attributes of items; []: the format's title
    dim: int = 64
    min_df: int = 2  # a word counts when so many items have it (word2vec: when it occurs so often)
    vocabulary: int = 20000  # tfidf: words at most, the most frequent
    seed: int = 1


@dataclass(frozen=True)
class PrepareConfig:
    """Preparation of the training tables."""

    sessions: SessionsConfig = field(default_factory=SessionsConfig)
    baskets: BasketsConfig = field(default_factory=BasketsConfig)
    user_item: UserItemConfig = field(default_factory=UserItemConfig)
    support: SupportConfig = field(default_factory=SupportConfig)
    text: TextConfig = field(default_factory=TextConfig)


@dataclass(frozen=True)
class TrainConfig:
    """Workers of the neural models."""

    ranks: int = 1  # Horovod workers; 1 trains in the driver, without a launcher
    start_timeout_s: int = 120
    gloo_timeout_s: int = 60
    threads_per_rank: int = 0  # 0: the machine's cores divided by the ranks on it
    snapshot_files: int = 12  # files of a snapshot; a multiple of every rank count in use
    device: str = "auto"  # auto | cpu | cuda
    matmul_precision: str = "highest"  # highest | high | medium: torch.set_float32_matmul_precision
    cuda_graphs: bool = False  # record the plain GRU's step on a GPU once and replay it; one rank
    shared_memory: bool = True  # ranks of one machine exchange messages in its memory; False: through Horovod


@dataclass(frozen=True)
class EvaluationConfig:
    """Temporal hold-out. Of cutoff, holdout_quantile and holdout_days the first that is set counts."""

    cutoff: Optional[str] = None  # UTC timestamp: events from here on are held out
    holdout_quantile: Optional[float] = None  # of event time (session start for the GRU)
    holdout_days: float = 7.0
    k: List[int] = field(default_factory=lambda: [10, 20])
    ties: str = "conservative"  # conservative | standard | median: the place of a session's next item among equals
    recent_days: float = 14.0  # window of the recent-popularity baseline
    cold_below: int = 5  # users with fewer items, and items with fewer users, are cold, and are judged apart too
    refit: bool = True  # publish from a model trained on all data, not on the hold-out's training part
    min_users: int = 20  # a hold-out of fewer users, sessions or baskets says nothing: nothing is judged on it
    min_pairs: int = 30  # nor on one of fewer things that they took


@dataclass(frozen=True)
class GateConfig:
    """What a model must reach on the hold-out to be published."""

    enabled: bool = True
    metric: str = "recall"  # recall | mrr
    k: int = 20  # one of evaluation.k
    below_popularity: float = 0.5  # share that the metric may be below recent popularity's
    below_last: float = 0.2  # share that it, and its multiple of popularity's, may be below the last published's
    min_users_share: float = 0.9  # users with a list, of those who should have one
    unjudged: str = "popularity"  # popularity | model: what is published where nothing could be judged
    patience: int = 3  # nights in a row that a model is held back until its message says so loudly; 0: never


@dataclass(frozen=True)
class TopKConfig:
    """The published lists."""

    k: int = 20
    fallback: bool = True  # lists that a model leaves short are filled up with what was popular of late
    similar_items: bool = True  # als, two_tower: the items beside each item too, into topk_<model>_items
    similar_users: bool = False  # als, two_tower: the users beside each user too, into topk_<model>_users
    exclude: List[str] = field(default_factory=list)  # attribute=value: items with it are on no list
    index: str = "exact"  # exact | hnsw | ivf: the users' and sessions' lists by an approximate index of faiss
    min_recall: float = 0.95  # hnsw, ivf: where it finds fewer of the exact lists' items, the exact lists are published
    hnsw_neighbours: int = 32  # hnsw: edges of each item
    hnsw_search: int = 256  # hnsw: candidates kept while searching (efSearch)
    ivf_cells: int = 0  # ivf: cells that the items are divided into; 0: four times the root of their number
    ivf_probes: int = 16  # ivf: cells that are searched
    block_mb: int = 64  # memory of a block of scores
    similar_index: str = "exact"  # exact | lsh: the items beside items by MLlib's random projections
    lsh_tables: int = 48  # lsh: hash tables
    lsh_hashes: int = 10  # lsh: projections of a table
    pass_mb: int = 1024  # memory of the item vectors that a worker searches at once: more items take several passes


@dataclass(frozen=True)
class PriorConfig:
    """Recent popularity that the scores of the user models are blended with; a strength of 0 leaves them alone.

    p is the number of users that took the item in the last ``days``.
    """

    days: float = 14.0
    als: float = 0.0  # strength: score * (p + 1) ** als
    als_added: float = 0.0  # strength: score + als_added * ln(p + 1), after the former
    two_tower: float = 0.0  # strength: score + two_tower * ln(p + 1)
    item_neighbours: float = 0.0  # strength: score * (p + 1) ** item_neighbours


@dataclass(frozen=True)
class ReportConfig:
    """The page that says what a night did."""

    nightly: bool = True  # a night that reaches topk, or fails, writes its report
    path: Optional[str] = None  # folder of the reports; None: <warehouse>/reports
    nights: int = 30  # the metrics go back so many nights
    users: int = 4  # whose lists are shown


@dataclass(frozen=True)
class MaintenanceConfig:
    """The care of the warehouse at the end of each night."""

    enabled: bool = True
    compact_files: int = 32  # a table is compacted when it would have so many files fewer; 0: never
    file_mb: int = 128  # files smaller than half of it are merged, into files up to it
    retention_hours: float = 168.0  # of superseded files; never less than the longest night and margin_hours
    margin_hours: float = 24.0
    log_retention_days: int = 30  # of the tables' history
    keep_nights: int = 30  # nights whose models and snapshots are kept; 0: all
    keep_list_nights: int = 90  # nights whose lists are kept, at least keep_nights; 0: all


@dataclass(frozen=True)
class Config:
    """The whole configuration of a night."""

    logs: LogsConfig = field(default_factory=LogsConfig)
    warehouse: WarehouseConfig = field(default_factory=WarehouseConfig)
    spark: SparkConfig = field(default_factory=SparkConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    models: List[str] = field(default_factory=lambda: ["als", "gru", "two_tower"])
    als: AlsConfig = field(default_factory=AlsConfig)
    gru: GruConfig = field(default_factory=GruConfig)
    two_tower: TwoTowerConfig = field(default_factory=TwoTowerConfig)
    prod2vec: Prod2VecConfig = field(default_factory=Prod2VecConfig)
    meta_prod2vec: MetaProd2VecConfig = field(default_factory=MetaProd2VecConfig)
    content2vec: Content2VecConfig = field(default_factory=Content2VecConfig)
    rules: RulesConfig = field(default_factory=RulesConfig)
    item_neighbours: ItemNeighboursConfig = field(default_factory=ItemNeighboursConfig)
    user_neighbours: UserNeighboursConfig = field(default_factory=UserNeighboursConfig)
    session_neighbours: SessionNeighboursConfig = field(default_factory=SessionNeighboursConfig)
    session_hybrid: SessionHybridConfig = field(default_factory=SessionHybridConfig)
    content: ContentConfig = field(default_factory=ContentConfig)
    hybrid: HybridConfig = field(default_factory=HybridConfig)
    user_groups: UserGroupsConfig = field(default_factory=UserGroupsConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    topk: TopKConfig = field(default_factory=TopKConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    maintenance: MaintenanceConfig = field(default_factory=MaintenanceConfig)


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
