"""What every stage of a night is given: the night, and the tables that the stage reads."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pyspark import StorageLevel

from sparkrec.errors import InvariantError, UserError
from sparkrec.prepare.cut import as_of, utc
from sparkrec.settings.config import Config
from sparkrec.settings.formats import LogFormat
from sparkrec.warehouse import store
from sparkrec.warehouse.ledger import Versions
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.lock import Lock
from sparkrec.warehouse.tables import COPURCHASE, END_TS, INTERACTIONS, LAST_TS, SESSIONS, TS, USER_ITEM, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

T = TypeVar("T")


class Found:
    """What has been found out, so that nothing is asked twice: numbers, arrays of items, and rows that Spark keeps."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}
        self._kept: list[DataFrame] = []

    def once(self, what: Hashable, find: Callable[[], T]) -> T:
        """What ``find`` returned when this was first asked; ``what`` names all that the answer depends on."""
        if what not in self._known:
            self._known[what] = find()
        answer: T = self._known[what]
        return answer

    def kept(self, what: Hashable, find: Callable[[], DataFrame]) -> DataFrame:
        """Rows that are computed once and stay on the executors until ``release``."""

        def find_and_keep() -> DataFrame:
            self._kept.append(find().persist(StorageLevel.MEMORY_AND_DISK))
            return self._kept[-1]

        return self.once(what, find_and_keep)

    def release(self) -> None:
        """Gives up the rows that are kept."""
        self._known.clear()
        while self._kept:
            self._kept.pop().unpersist()


@dataclass(frozen=True)
class Night:
    """One attempt at one night.

    Attributes:
        found: What its stages need to ask but once: a few numbers.
    """

    spark: SparkSession
    config: Config
    fmt: LogFormat
    run_date: date
    run_id: str
    code_version: str
    lock: Lock | None = None  # of the warehouse; without one nothing is fenced
    found: Found = field(default_factory=lambda: Found(), compare=False, repr=False)

    @property
    def warehouse(self) -> Warehouse:
        """The warehouse of the configuration, whose every write asks first if the lock is still this attempt's."""
        path = self.config.warehouse.path
        return Warehouse(path) if self.lock is None else Warehouse(path, self.lock.check)

    @property
    def as_of(self) -> datetime:
        """00:00 of the day after ``run_date``, in UTC or ``logs.timezone``: the night knows what happened before it."""
        return as_of(self.run_date, self.config.logs.timezone)


# When what a row of a prepared table says was known.
_KNOWN_AT = {INTERACTIONS.name: TS, SESSIONS.name: END_TS, COPURCHASE.name: END_TS, USER_ITEM.name: LAST_TS}


@dataclass(frozen=True)
class Inputs:
    """The tables that a stage reads, pinned to the versions that its row in ``runs`` will name.

    Attributes:
        night: The night.
        versions: Of the tables, by name.
        found: What the stage needs to ask of them but once.
        settings: The hash of all settings that the stage's results depend on.
    """

    night: Night
    versions: Versions
    found: Found = field(default_factory=Found, compare=False, repr=False)
    settings: str = ""

    def read(self, table: Table) -> DataFrame:
        """Reads a table at its pinned version; of what events made, nothing that came after the night."""
        version = self.versions.get(table.name)
        if not isinstance(version, int):
            raise InvariantError(f"{table.name} is not among the stage's inputs {sorted(self.versions)}")
        rows = store.read(self.night.spark, self.night.warehouse, table, at=version)
        known_at = _KNOWN_AT.get(table.name)
        if known_at is not None and known_at not in rows.columns:
            fix = f"run sparkrec nightly --run-date {self.night.run_date} --from prepare"
            raise UserError(f"table {table.name} was written by an earlier version: no {known_at}", fix=fix)
        return rows if known_at is None else rows.where(rows[known_at] < utc(self.night.as_of))

    def has(self, table: Table) -> bool:
        """Whether the (optional) table existed when the stage began."""
        return table.name in self.versions
