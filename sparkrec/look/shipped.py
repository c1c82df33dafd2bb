"""Which of the shipped formats takes a log in as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparkrec.look.events import LEFT_OUT, REASON, as_events
from sparkrec.look.rows import as_read, reader_of, renamed
from sparkrec.settings.format_files import format_names, load_format
from sparkrec.settings.formats import LogFormat

if TYPE_CHECKING:
    import polars as pl

    from sparkrec.look.roles import Roles
    from sparkrec.look.sample import Kind

ROWS = 5000
ENOUGH = 0.95  # of the rows must become events, those left aside on purpose apart
COVERED = ("ts", "user", "item", "event_type", "value", "quantity", "price", "session", "basket")


@dataclass(frozen=True)
class Fit:
    """A shipped format and how well it fits.

    Attributes:
        fmt: The format.
        rows: The sample's rows under the names of the format's columns.
        valid: Share of the rows that become events.
        named: Columns of the log that the format uses.
    """

    fmt: LogFormat
    rows: pl.DataFrame
    valid: float
    named: int


def fitting(kind: Kind, roles: Roles, kinds: Sequence[Kind]) -> list[Fit]:
    """The shipped formats that take a kind of files in, and leave no role out, the best first.

    Args:
        kind: The files.
        roles: Of their columns.
        kinds: All kinds of the log's files: some formats join them.
    """
    found = [fit for name in format_names() if (fit := _fit(load_format(name), kind, roles, kinds))]
    return sorted(found, key=lambda fit: (-round(fit.valid, 2), -fit.named, fit.fmt.name))


def _fit(fmt: LogFormat, kind: Kind, roles: Roles, kinds: Sequence[Kind]) -> Fit | None:
    reader = reader_of(kind, fmt.readers)
    rows = as_read(renamed(kind, reader), fmt, kinds) if reader else None
    if reader is None or rows is None:
        return None
    fields = [fmt.ts, fmt.user, fmt.item, fmt.value, fmt.quantity, fmt.price, fmt.session, fmt.basket]
    if any(f.required and not set(f.columns) & set(rows.columns) for f in fields if f):
        return None
    named = {name for f in fields if f for name in f.columns} | set(fmt.event_type.columns)
    named |= {rule.column for rule in fmt.event_type.rules} | {n for span in fmt.ts.plus for n in span.columns}
    if reader.header or kind.dialect is None:
        attributes = {name for a in fmt.item_attributes + fmt.user_attributes for name in a.columns}
        if not {column for role, column in roles.columns.items() if role in COVERED} <= named | attributes:
            return None
    judged = as_events(rows.head(ROWS), fmt)
    wrong = judged.filter(judged[REASON].is_not_null() & (judged[REASON] != LEFT_OUT)).height
    left = judged[REASON].count() - wrong
    valid = 1 - wrong / max(1, judged.height)
    used = len(named & set(rows.columns))
    return Fit(fmt, rows, valid, used) if valid >= ENOUGH and left < judged.height else None
