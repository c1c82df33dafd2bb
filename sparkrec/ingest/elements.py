"""Rows within rows: each element of a column becomes a row, with the fields of the row that it is in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec.settings.formats import POSITION, SUFFIX, Explode

ELEMENTS = "_elements"  # the array, in rows that are not taken apart yet
HEAD_CHARS = 1000  # of the row that an element is in, as it is quarantined
_ELEMENT, _PLACE = "_element", "_place"


def empty(explode: Explode) -> str:
    """Why a row without an element is refused."""
    return f"empty {explode.column}"


def element_fields(explode: Explode, names: Sequence[str]) -> list[str]:
    """The fields of an element, of structs, that are among the names of columns."""
    beginning = f"{explode.column}."
    fields = [name.removeprefix(beginning) for name in names if name.startswith(beginning)]
    return [name for name in fields if name != POSITION] if explode.kind == "structs" else []


def own_names(explode: Explode | None, names: Sequence[str]) -> list[str]:
    """The names that are not of elements."""
    if explode is None:
        return list(names)
    return [name for name in names if name != explode.column and not name.startswith(f"{explode.column}.")]


def column_names(explode: Explode | None, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of a file with those that its elements have, structs left out."""
    if explode is None or explode.column not in columns:
        return tuple(columns)
    return (*columns, f"{explode.column}.{POSITION}", f"{explode.column}.{SUFFIX}")


def split_text(text: Column, explode: Explode) -> Column:
    """The elements of a text: array<string>, blank ones left out."""
    return F.filter(F.split(text, re.escape(explode.separator)), lambda element: F.trim(element) != "")


def exploded(
    rows: DataFrame,
    explode: Explode,
    fault: str,
    raw: str,
    values: Callable[[Column], Mapping[str, Column]],
    faults: Callable[[Column], Sequence[Column]] = lambda _: (),
) -> DataFrame:
    """One row for each element; a row without one, or with a fault, stays one row: quarantined, or as it is.

    Args:
        rows: With the array ``_elements``.
        explode: What they are.
        fault: The column that says why a row cannot be taken apart.
        raw: The column with the row as written; an element's is its values and the beginning of its row.
        values: Texts of the element's fields, by name; of no structs, the element itself under the column's name.
        faults: Why an element cannot be taken, each null where it can.
    """
    elements = F.when(F.col(fault).isNull(), F.col(ELEMENTS))
    some = F.coalesce(F.size(elements) > 0, F.lit(False))
    head = F.when(some, F.substring(raw, 1, HEAD_CHARS)).otherwise(F.col(raw)).alias(raw)
    kept = [head if c == raw else F.col(f"`{c}`") for c in rows.columns if c != ELEMENTS]
    rows = rows.select(*kept, F.posexplode_outer(elements).alias(_PLACE, _ELEMENT))
    fields = _without_suffix(explode, dict(values(F.col(_ELEMENT))))
    fields[f"{explode.column}.{POSITION}"] = F.col(_PLACE).cast("string")
    nothing = F.when(F.col(_PLACE).isNull() & F.lit(not explode.keep_empty), empty(explode))
    written = F.concat_ws("\t", F.concat_ws(" ", *(v for n, v in fields.items() if not n.endswith(POSITION))), raw)
    whole = [F.col(f"`{c}`") for c in rows.columns if c not in (fault, raw, _PLACE, _ELEMENT)]
    return rows.select(
        F.when(F.col(_PLACE).isNull(), F.col(raw)).otherwise(written).alias(raw),
        F.coalesce(fault, nothing, *faults(F.col(_ELEMENT))).alias(fault),
        *whole,
        *[value.alias(name) for name, value in fields.items()],
    )


def _without_suffix(explode: Explode, fields: dict[str, Column]) -> dict[str, Column]:
    if not explode.suffix:
        return fields
    text = F.trim(fields[explode.column])
    found = F.regexp_extract(text, explode.suffix, 1)
    return {
        explode.column: F.regexp_replace(text, explode.suffix, ""),
        f"{explode.column}.{SUFFIX}": F.when(found != "", found),
    }
