"""Columns of the log that are in further files of it: each row of the log with the one of theirs that has its key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec.ingest.dedupe import FILE_NO
from sparkrec.ingest.parse import REASON
from sparkrec.ingest.raw import FAULT, RAW, URI
from sparkrec.ingest.values import pick_id
from sparkrec.settings.formats import Field, Join

NO_PARTNER = "no partner by "
_PARTNER = "_partner"


@dataclass(frozen=True)
class Partners:
    """The rows of the files of a join: one for each key, with the columns that they give."""

    join: Join
    rows: DataFrame  # _key_0, … and _value_0, …
    columns: tuple[str, ...]  # names of the values


def their_key(join: Join) -> tuple[str, ...]:
    """The columns of the key in the files of a join."""
    return join.their_key or join.key


def parse_joined(raw: DataFrame, join: Join, names: Sequence[str], nulls: Sequence[str]) -> DataFrame:
    """Raw rows of a joined file → ``_uri``, key, values of the names, ``reason`` and ``_raw`` (null for a valid row).

    A name that the file does not have is left out.
    """
    keys = [_key(raw, name, nulls) for name in their_key(join)]
    missing = F.lit(False)
    for key in keys:
        missing = missing | key.isNull()
    reason = F.coalesce(FAULT, F.when(missing, missing_key(join)))
    values = [F.col(f"`{name}`").alias(f"_value_{n}") for n, name in enumerate(names) if name in raw.columns]
    return raw.select(
        URI, reason.alias(REASON), F.when(reason.isNotNull(), F.col(RAW)).alias(RAW),
        *[key.alias(f"_key_{n}") for n, key in enumerate(keys)], *values,
    )  # fmt: skip


def missing_key(join: Join) -> str:
    """Why a row of a joined file is refused that no row can be joined with."""
    return f"missing {' or '.join(their_key(join))}"


def partners(staged: DataFrame, join: Join, names: Sequence[str]) -> Partners:
    """One row for each key: of several, that of the last file, and of those the largest.

    Args:
        staged: What ``parse_joined`` gave, with ``file_no``.
        join: The declaration.
        names: As there.
    """
    keys = [f"_key_{n}" for n in range(len(join.key))]
    own = {f"_value_{n}": name for n, name in enumerate(names) if f"_value_{n}" in staged.columns}
    last = F.max(F.struct(FILE_NO, *own)).alias("_last")
    rows = staged.where(F.col(REASON).isNull()).groupBy(*keys).agg(last)
    return Partners(join, rows.select(*keys, *[f"_last.{value}" for value in own]), tuple(own.values()))


def with_partners(raw: DataFrame, found: Sequence[Partners], nulls: Sequence[str]) -> DataFrame:
    """Raw rows with the columns that their partners have; what a row says itself counts.

    A row that has no partner is faulty. As keys are unique there, there are as many rows as before.
    """
    for other in found:
        raw = _with_partner(raw, other, nulls)
    return raw


def _with_partner(raw: DataFrame, other: Partners, nulls: Sequence[str]) -> DataFrame:
    theirs = other.rows.withColumn(_PARTNER, F.lit(True))
    values = {name: f"_value_{n}" for name, n in _places(other)}
    on = F.lit(True)
    for n, name in enumerate(other.join.key):
        on = on & (_key(raw, name, nulls) == F.col(f"_key_{n}"))
    joined = raw.join(theirs, on, "left")
    alone = F.when(F.col(_PARTNER).isNull(), f"{NO_PARTNER}{', '.join(other.join.key)}")
    types = dict(raw.dtypes)
    columns = []
    for name in raw.columns:
        own = F.col(f"`{name}`")
        if name == FAULT:
            own = F.coalesce(own, alone).alias(name)
        elif name in values and types[name] == dict(other.rows.dtypes)[values[name]]:
            own = F.coalesce(own, F.col(values[name])).alias(name)
        columns.append(own)
    return joined.select(*columns, *[F.col(v).alias(name) for name, v in values.items() if name not in raw.columns])


def _places(other: Partners) -> list[tuple[str, int]]:
    numbers = [int(column.removeprefix("_value_")) for column in other.rows.columns if column.startswith("_value_")]
    return list(zip(other.columns, numbers, strict=True))


def _key(raw: DataFrame, name: str, nulls: Sequence[str]) -> Column:
    return pick_id(raw, Field((name,), normalize=("trim",)), nulls)
