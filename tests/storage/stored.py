"""The suite's night on another storage than a local disk."""

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from sparkrec.storage.places import place_of
from sparkrec.warehouse.reading import to_frame
from tests.nights import Place


@dataclass(frozen=True)
class Stored:
    """A place whose warehouse is a URI; what ``tests.nights`` asks of a place it answers alike."""

    place: Place
    uri: str
    more: tuple[str, ...] = ()

    @property
    def last(self) -> date:
        return self.place.last

    def at_log(self, log: Path, days: int) -> "Stored":
        return replace(self, place=replace(self.place, log=log, days=days))

    def settings(self, *more: str) -> list[str]:
        """Later settings win."""
        return [*self.place.settings(), f"warehouse.path={self.uri}", "train.ranks=2", *self.more, *more]

    def open(self, name: str) -> DeltaTable:
        return DeltaTable(place_of(f"{self.uri}/{name}").reader_uri)

    def table(self, name: str) -> pl.DataFrame:
        reader = self.open(name).scan()
        return pl.concat([to_frame([], reader.schema), *(to_frame([batch], reader.schema) for batch in reader)])
