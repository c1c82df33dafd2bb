"""What a report says, before it is a page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

PUBLISHED, HELD_BACK, FAILED, UNFINISHED = "published", "held back", "failed", "unfinished"


@dataclass(frozen=True)
class Absent:
    """What the page says where something is not there."""

    why: str


@dataclass(frozen=True)
class Stage:
    """A stage's last run of the night that did something, or else its last one."""

    name: str
    status: str  # as in ``runs``
    seconds: float
    jobs: int | None  # None: an earlier version of the package, which did not count them
    rows_in: int | None
    rows_out: int | None
    message: str
    config_hash: str
    skipped_since: int  # later attempts that found nothing to do


@dataclass(frozen=True)
class Ingest:
    """Rows taken in by all attempts of the night: read = kept + quarantined + duplicates."""

    read: int
    kept: int
    quarantined: int
    duplicates: int


@dataclass(frozen=True)
class Model:
    """What became of a model of the night."""

    name: str
    state: str
    why: str  # of a model held back: what the gate has against it
    version: str | None  # of the model trained
    current: date | None  # the night whose lists are current now


@dataclass(frozen=True)
class Head:
    """Which night, and how it ended."""

    run_date: date
    state: str
    why: str
    run_ids: tuple[str, ...]  # the attempts, in order of time
    started_at: datetime  # UTC
    ended_at: datetime  # UTC
    seconds: float  # of all stages of all attempts
    config_hash: str  # of the whole configuration
    code_version: str
    models: tuple[Model, ...]


@dataclass(frozen=True)
class Sample:
    """A refused row."""

    source: str
    raw: str


@dataclass(frozen=True)
class Reason:
    """Why rows were refused, how many, and some of them."""

    reason: str
    rows: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Lengths:
    """Sessions or baskets, by the number of their items."""

    total: int
    anonymous: int
    users: int
    counts: tuple[tuple[int, int], ...]  # (length, how many), ascending

    @property
    def items(self) -> int:
        """The items in all of them."""
        return sum(length * n for length, n in self.counts)

    def quantile(self, q: float) -> int:
        """The smallest length that at least the share ``q`` of them do not exceed."""
        passed = 0
        for length, n in self.counts:
            passed += n
            if passed >= q * self.total:
                return length
        return 0


@dataclass(frozen=True)
class Losses:
    """The loss of each epoch of one part (holdout, full) of a neural model."""

    model: str
    part: str
    by_epoch: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class NightValue:
    """A model's metric on one night, and what it was held against; None where there is none."""

    run_date: date
    value: float | None
    popularity: float | None  # recent popularity's on the same hold-out
    last: float | None  # of the model published before, or as many times this popularity as then, if that is lower
    published: bool


@dataclass(frozen=True)
class History:
    """A model's metric over the nights, with the gate's margins as they are now."""

    model: str
    metric: str
    nights: tuple[NightValue, ...]
    below_popularity: float
    below_last: float
    gated: bool


@dataclass(frozen=True)
class MetricRow:
    """The metrics of a model or a baseline on one hold-out, for one length of the lists."""

    split: str
    model: str
    k: int | None  # None where all metrics are of no length
    n: int  # users, events or ratings judged
    values: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Calibration:
    """Predicted ratings of a model beside the true ones."""

    model: str
    points: tuple[tuple[int, float, float, int], ...]  # part of the scale; mean prediction and rating there; how many
    rmse: tuple[tuple[str, float], ...]  # of the model and of the baselines, by name


@dataclass(frozen=True)
class Spread:
    """How a model's lists spread over the items."""

    model: str
    by_decile: tuple[float, ...]  # share of the lists' places, from the most popular tenth of the items to the least
    events: tuple[float, ...]  # share of the events, likewise
    listed: int  # items that are in some list
    items: int


@dataclass(frozen=True)
class Listed:
    """A place of a list."""

    rank: int
    item_id: str
    title: str | None
    score: float


@dataclass(frozen=True)
class UserLists:
    """The lists of a user, or of an anonymous session, by model; and the last items before, the latest first."""

    key: str
    is_session: bool
    recent: tuple[str, ...]
    lists: tuple[tuple[str, tuple[Listed, ...]], ...]


@dataclass(frozen=True)
class TableSize:
    """A table as it is now."""

    name: str
    rows: int | None
    files: int
    n_bytes: int
    version: int
    comment: str


@dataclass(frozen=True)
class Tried:
    """Settings that were tried, and what they reached."""

    settings: str
    value: float


@dataclass(frozen=True)
class Tuned:
    """What the last tuning of a model found, on a validation night."""

    model: str
    run_date: date  # the night that tuned
    validation_date: date
    metric: str  # e.g. recall@20
    settings: str  # the best that were tried
    value: float
    before: float  # what those in use reached
    low: float  # of the difference's confidence interval
    high: float
    taken: bool
    n_tried: int  # in full
    n_short: int  # with less training
    seconds: float
    best: tuple[Tried, ...]  # of those tried in full


@dataclass(frozen=True)
class Report:
    """Everything that a page says."""

    head: Head
    stages: tuple[Stage, ...]
    ingest: Ingest | Absent
    quarantine: tuple[Reason, ...] | Absent
    sessions: Lengths | Absent
    baskets: Lengths | Absent
    losses: tuple[Losses | Absent, ...]
    histories: tuple[History, ...] | Absent
    metrics: tuple[MetricRow, ...] | Absent
    calibrations: tuple[Calibration, ...] | Absent
    spreads: tuple[Spread | Absent, ...]
    tuned: tuple[Tuned, ...] | Absent
    users: tuple[UserLists, ...] | Absent
    tables: tuple[TableSize, ...] | Absent
    written_at: datetime  # UTC
