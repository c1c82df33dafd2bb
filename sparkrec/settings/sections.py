"""The sections of the configuration but for the models': a frozen dataclass each."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Dict, List, Optional

from sparkrec.models import MODELS
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

    path: str = setting("", "file or folder of raw logs, plain or compressed, on any storage of docs/storage.md")
    format: str = setting(
        "", "a name in conf/formats (reviews, invoices, sessions, ratings, …), or the path of a YAML file"
    )
    items_path: Optional[str] = setting(None, "file of item attributes, as the format declares it")
    users_path: Optional[str] = setting(None, "file of user attributes, as the format declares it")
    table: str = setting(
        "",
        "in place of path: a table of Spark's catalogs (schema.events, catalog.schema.events), or the path of a Delta "
        "table; see docs/tables.md",
    )
    timezone: Optional[str] = setting(
        None, "whose days the nights, sessions and yesterday are, e.g. Europe/London; null: UTC"
    )

    @property
    def table_is_path(self) -> bool:
        """Whether the table is named by its path: names of catalogs have neither a slash nor a scheme."""
        return "`" not in self.table and bool(re.search("[/:]", self.table))

    @property
    def places(self) -> tuple[str, ...]:
        """All paths of the section that are set."""
        table = self.table if self.table_is_path else ""
        return tuple(path for path in (self.path, table, self.items_path, self.users_path) if path)


@dataclass(frozen=True)
class WarehouseConfig:
    """Where the Delta tables, models and snapshots live."""

    path: str = setting("", "folder of the Delta tables, models and snapshots; every executor must reach it")
    catalog: Optional[str] = setting(
        None, "schema or catalog.schema in which the tables are registered after each night; null: in none"
    )
    lock_expiry_s: float = setting(
        300.0,
        "seconds, 10 to 86400; a lock that its night has not renewed for so long is taken over",
        Bounds(10, 86_400),
    )


@dataclass(frozen=True)
class StorageConfig:
    """How storage is reached, for Spark, ranks and readers alike; secrets come from the environment or the platform."""

    endpoint: Optional[str] = setting(
        None, "address of an S3-compatible store, e.g. https://minio.example:9000; null: AWS, or AWS_ENDPOINT_URL"
    )
    region: Optional[str] = setting(None, "of the buckets, e.g. eu-central-1; null: AWS_REGION, or us-east-1")
    path_style: Optional[bool] = setting(
        None, "the bucket stands in the path, not in the host's name; null: yes where there is an endpoint"
    )
    anonymous: bool = setting(False, "public buckets: requests are not signed")
    profile: Optional[str] = setting(None, "of ~/.aws/credentials; every executor must have it; null: AWS_PROFILE")
    conditional_puts: bool = setting(
        True, "false: the store has none, and nobody else writes to the warehouse while a night runs"
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
        "none | tfidf (with a truncated SVD) | word2vec (the mean of the words' vectors) | cnn (learnt by telling the "
        "items' categories)",
        choices=["none", "tfidf", "word2vec", "cnn"],
    )
    columns: List[str] = setting([], "attributes of items, joined; []: the format's title")
    dim: int = setting(64, "dimensions of the vectors; cnn: filters, over 3, 4 and 5 words", COUNT)
    min_df: int = setting(2, "a word counts when so many items have it (word2vec: when it occurs so often)", COUNT)
    vocabulary: int = setting(20000, "tfidf, cnn: words at most, the most frequent", COUNT)
    category: str = setting("", "cnn: the feature of items that is told; '': the format's first that is no number")
    words: int = setting(64, "cnn: words of a text that are read, from its beginning", Bounds(5))
    word_dim: int = setting(64, "cnn: dimensions of the words", COUNT)
    epochs: int = setting(10, "cnn: passes over the texts", COUNT)
    seed: int = setting(1, bounds=SEED)


@dataclass(frozen=True)
class ImageConfig:
    """Vectors of the items' images."""

    column: str = setting("", "attribute of items: a path, under folder where it is relative, or an address; '': none")
    folder: str = setting("", "where relative paths begin: a folder of any storage that the executors reach")
    network: str = setting(
        "efficientnet_lite0",
        "efficientnet_lite0 | efficientnet_b0 | resnet18 | resnet50 | vgg16 (fc7)",
        choices=["efficientnet_lite0", "efficientnet_b0", "resnet18", "resnet50", "vgg16"],
    )
    weights: str = setting("", "safetensors file of its pretrained weights, that the executors reach")
    batch: int = setting(32, "images that go through the network together", COUNT)
    max_mb: float = setting(20.0, "larger files are not read", POSITIVE)
    timeout_s: float = setting(20.0, "an address that does not answer for so long is left", POSITIVE)


@dataclass(frozen=True)
class PrepareConfig:
    """Preparation of the training tables."""

    sessions: SessionsConfig = section(SessionsConfig)
    baskets: BasketsConfig = section(BasketsConfig)
    user_item: UserItemConfig = section(UserItemConfig)
    support: SupportConfig = section(SupportConfig)
    max_user_events_per_day: Optional[int] = setting(
        None,
        "users with more events on any day are taken for crawlers: their events stay in the table events, but nothing "
        "is learnt from them, nor judged on them; null: nobody",
        COUNT,
    )
    text: TextConfig = section(TextConfig, "vectors of the items' texts, in the table item_vectors")
    image: ImageConfig = section(
        ImageConfig, "vectors of the items' images by a pretrained network, in the table item_vectors"
    )


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
    ratings: str = setting(
        "time",
        "what predicted ratings are judged on: time (those from the cutoff on) | random (a share of all, which a part "
        "of the model of its own does not see)",
        choices=["time", "random"],
    )
    ratings_share: float = setting(0.2, "random: the share", INNER_SHARE)
    ratings_seed: int = setting(1, "random: another one draws others", SEED)


PER_SESSION = "_per_session"  # ends the names of metrics in which each session counts alike


@dataclass(frozen=True)
class GateConfig:
    """What a model must reach on the hold-out to be published."""

    enabled: bool = setting(True, "false: every model is published")
    metric: str = setting("recall", "recall | mrr", choices=["recall", "mrr"])
    per: str = setting(
        "event",
        "event | session: in sessions and baskets each thing to predict counts alike, or each session does",
        choices=["event", "session"],
    )
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

    def metric_of(self, named: Container[str]) -> str:
        """The metric's name in a hold-out of these metrics: by session, where they are and it is wanted."""
        by_session = self.metric + PER_SESSION
        return by_session if self.per == "session" and by_session in named else self.metric


@dataclass(frozen=True)
class TopKConfig:
    """The published lists."""

    k: int = setting(20, "length of the published lists", COUNT)
    fallback: bool = setting(
        True, "lists that a model leaves short are filled up with what was popular of late, and say so"
    )
    similar_items: bool = setting(
        True, "als, two_tower and others: the items beside each item too, into topk_<model>_items"
    )
    similar_users: bool = setting(
        False,
        "als, two_tower and others: the users beside each user, into topk_<model>_users; grows with users squared",
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
        "what tells users apart: rfm (recency, frequency, value) | als | two_tower | implicit_mf (of the night)",
        choices=["rfm", *_WITH_USERS],
    )
    method: str = setting("kmeans", "kmeans | bisecting (hierarchical)", choices=["kmeans", "bisecting"])
    groups: List[int] = setting(
        [3, 4, 5, 6, 8], "numbers of groups that are tried; the silhouette chooses", Bounds(2, least=1)
    )
    sample: int = setting(20000, "users that the silhouette is measured on", PAIR)
    profile: str = setting("", "attribute of items whose values describe a group; empty: the format's title")
    seed: int = setting(1, bounds=SEED)
