"""What a look at a log has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparkrec.look import proposal
from sparkrec.look.facts import Facts
from sparkrec.look.joins import Joined
from sparkrec.look.roles import Roles
from sparkrec.look.sample import Kind
from sparkrec.settings.formats import LogFormat

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Seen:
    """What a look has found.

    Attributes:
        kinds: The files that are the log, the first ones those that decided.
        roles: Of their columns.
        fmt: The format.
        shipped: Its name, where it is a shipped one.
        columns: Of the rows that the format reads.
        judged: The sample's events.
        facts: Counts of them.
        items, users: Attribute files of the items and the users.
        joins: Files that the log's rows are joined with, where the format was made for it.
        aside: Files that are no part of the log, with the reasons.
    """

    kinds: tuple[Kind, ...]
    roles: Roles
    fmt: LogFormat
    shipped: str
    columns: list[str]
    judged: pl.DataFrame
    facts: Facts
    items: proposal.Beside | None
    users: proposal.Beside | None
    joins: tuple[Joined, ...]
    aside: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether all of the log was read."""
        return all(kind.share > 0.999 for kind in self.kinds)


def names_of(kind: Kind) -> str:
    """The names of a kind's files, of several the first and the last."""
    names = [file.name for file in kind.files]
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
