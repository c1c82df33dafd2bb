"""Where a warehouse is: the folders of its tables, models and snapshots, and the fence before each write."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

from sparkrec.errors import UserError
from sparkrec.storage.places import HDFS, place_of
from sparkrec.warehouse.tables import Table


def _open() -> None:
    """The fence of who holds no lock."""


@dataclass(frozen=True)
class Warehouse:
    """The folder (on any storage of ``storage.places``) that holds tables, models and snapshots.

    A relative path counts from the current folder, once and for all: Delta takes absolute locations only.

    Attributes:
        path: The folder, as Spark takes it.
        fence: Called before each write: it raises where whoever writes has lost the warehouse's lock.

    Raises:
        UserError: A path that not every reader takes for the same place, or of a storage that is not supported.
    """

    path: str
    fence: Callable[[], None] = field(default=_open, compare=False, repr=False)

    def __post_init__(self) -> None:
        if re.search("%[0-9A-Fa-f]{2}", self.path):  # half of the readers take %20 for a blank, half as it is written
            raise UserError("a path with %20 or the like", where=f"warehouse.path={self.path}", fix="rename the folder")
        if not self.path:
            return
        place = place_of(self.path)
        if place.store == HDFS and not re.fullmatch(r"[\w./=@:+,~-]*", place.inside, re.ASCII):
            fix = "rename the folder: letters, digits and ./=@:+,~-_"
            raise UserError("a path that delta-rs does not find on HDFS", where=f"warehouse.path={self.path}", fix=fix)
        object.__setattr__(self, "path", place.uri)

    def table_path(self, table: Table) -> str:
        """``<warehouse>/<table>``, as Spark takes it."""
        return f"{self.path.rstrip('/')}/{table.name}"

    def reader_path(self, table: Table) -> str:
        """``<warehouse>/<table>``, as delta-rs takes it."""
        return place_of(self.table_path(table)).reader_uri

    def model_path(self, model: str, run_date: date) -> str:
        """``<warehouse>/models/<model>/<run_date>``."""
        return f"{self.models_path(model)}/{run_date.isoformat()}"

    def snapshot_path(self, model: str, run_date: date) -> str:
        """``<warehouse>/snapshots/<model>/<run_date>``."""
        return f"{self.snapshots_path(model)}/{run_date.isoformat()}"

    def models_path(self, model: str) -> str:
        """``<warehouse>/models/<model>``: a folder for each night."""
        return f"{self.path.rstrip('/')}/models/{model}"

    def snapshots_path(self, model: str) -> str:
        """``<warehouse>/snapshots/<model>``: a folder for each night."""
        return f"{self.path.rstrip('/')}/snapshots/{model}"
