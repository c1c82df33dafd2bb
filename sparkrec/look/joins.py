"""Further files of a log that its rows must be joined with: orders and their lines, each line of an order's user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sparkrec.look.columns import share
from sparkrec.look.roles import Roles, by_name, plain_name, roles_of
from sparkrec.look.sample import Kind

if TYPE_CHECKING:
    import polars as pl

UNIQUE = 0.99  # of the rows that a key must tell apart
FOUND = 0.9  # of the log's keys that the other file must have, where it was read whole


@dataclass(frozen=True)
class Joined:
    """A kind of files that gives columns to the log's rows."""

    kind: Kind
    key: str
    their_key: str
    gives: tuple[str, ...]  # the columns with a role


@dataclass(frozen=True)
class Log:
    """A kind of files that may be the log, with what is joined to it.

    Attributes:
        kind: With the rows as they are after the joins.
        roles: Of its columns and of those that came by the joins.
        joins: In order: a later one may have its key from an earlier one.
        own: The kind as it was read.
    """

    kind: Kind
    roles: Roles
    joins: tuple[Joined, ...]
    own: Kind


def with_joins(kind: Kind, kinds: Sequence[Kind]) -> Log:
    """A kind of files, joined with others where it says what was taken, but neither when nor by whom."""
    log = Log(kind, roles_of(kind), (), kind)
    while "item" in log.roles.columns and (log.joins or not {"user", "ts"} <= log.roles.columns.keys()):
        more = next((found for other in kinds if (found := _with(log, other)) is not None), None)
        if more is None:
            break
        log = more
    return log


def _with(log: Log, other: Kind) -> Log | None:
    """The log joined with another kind of files, where that tells more of when and by whom."""
    if other is log.own or any(other is join.kind for join in log.joins):
        return None
    keys = _keys(log.kind, other)
    if keys is None:
        return None
    key, theirs = keys
    new = [name for name in other.columns if name not in log.kind.columns]
    other_rows = other.rows.select(theirs, *new).unique(theirs, keep="first", maintain_order=True)
    whole = other.share > 0.999  # else a key may be in what was not read
    rows = log.kind.rows.join(
        other_rows, left_on=key, right_on=theirs, how="left" if whole else "inner", maintain_order="left"
    )
    joined = replace(log.kind, rows=rows, types=(*log.kind.types, *other.types))
    roles = _roles(log, joined, key)
    if not _tells_more(log, rows, roles, new):
        return None
    gives = tuple(name for name in roles.columns.values() if name in new)
    return Log(joined, roles, (*log.joins, Joined(other, key, theirs, gives)), log.own)


def _keys(kind: Kind, other: Kind) -> tuple[str, str] | None:
    """A column of the log, and the one of the other files that has each of its values once."""
    if any(one.dialect is not None and not one.dialect.header for one in (kind, other)):
        return None
    least = FOUND if other.share > 0.999 else 0.5 * other.share
    pairs = [(name, theirs) for theirs in other.columns for name in kind.columns]
    for name, theirs in (pair for pair in pairs if plain_name(pair[0]) == plain_name(pair[1])):
        values, own = other.rows[theirs].drop_nulls(), kind.rows[name].drop_nulls()
        if own.len() == 0 or values.len() < 0.98 * other.rows.height:
            continue
        if values.n_unique() < UNIQUE * other.rows.height:
            continue
        if share(own.is_in(values.unique().implode())) >= least:
            return name, theirs
    return None


def _roles(log: Log, joined: Kind, key: str) -> Roles:
    """The roles after a join; where each order has a user's id of its own, the id behind it is the user's."""
    roles = roles_of(joined)
    if not log.joins or key != roles.columns.get("user"):
        return roles
    distinct = {name: joined.rows[name].n_unique() for name in joined.columns}
    if distinct[key] < 0.95 * distinct[log.joins[0].key]:
        return roles
    others = [n for n in joined.columns if "user" in by_name(n) and n not in roles.columns.values()]
    behind = max((n for n in others if distinct[n] < distinct[key]), key=lambda n: distinct[n], default=None)
    return replace(roles, columns=roles.columns | {"user": behind}) if behind else roles


def _tells_more(log: Log, rows: pl.DataFrame, roles: Roles, new: Sequence[str]) -> bool:
    before, after = log.roles.columns, roles.columns
    if "item" not in after or after["item"] in new:
        return False
    if any(role in after and role not in before and after[role] in new for role in ("user", "ts")):
        return True
    return "user" in before and after.get("user") in new and bool(log.joins)
