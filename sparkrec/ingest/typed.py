"""Rows with types, of Parquet files and tables → raw rows: texts, and timestamps as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, StringType, StructType

from sparkrec.errors import UserError
from sparkrec.ingest.elements import ELEMENTS, column_names, element_fields, exploded, own_names, split_text
from sparkrec.ingest.nested import TypedColumn, typed_column
from sparkrec.ingest.raw import FAULT, INEXACT, NOT_UTF8, RAW, require_columns
from sparkrec.ingest.values import inexact, plain
from sparkrec.settings.formats import Explode
from sparkrec.settings.ids import EXACT


@dataclass(frozen=True)
class Typed:
    """Rows with types.

    Attributes:
        what: What they are of: a log file, a log table.
        where: Which one.
        rows: The rows.
        places: Columns that tell where a row is from, ``_uri`` among them.
        beside: Further columns by name, which are texts: those that a file's path gives.
        nanos: Columns of nanoseconds, which Spark reads as numbers, with their type.
        hidden: Columns that are no part of the row as it is written.
    """

    what: str
    where: str
    rows: DataFrame
    places: Sequence[Column]
    beside: Mapping[str, Column] = field(default_factory=dict)
    nanos: Mapping[str, str] = field(default_factory=dict)
    hidden: Sequence[str] = ()


def typed_rows(
    source: Typed,
    names: Sequence[str],
    ids: Sequence[str],
    required: Sequence[tuple[str, ...]],
    explode: Explode | None,
) -> DataFrame:
    """The raw rows; see :mod:`sparkrec.ingest.raw`.

    Args:
        source: The rows as they are.
        names: Log columns that the format names.
        ids: Those of them that hold ids: a row is faulty whose number is too large for its type to be exact.
        required: For each required column the names it may have.
        explode: The column whose elements are the rows.

    Raises:
        UserError: They lack a required column, or the column of the elements is of another kind.
    """
    rows = source.rows
    columns = {name: found for name in names if (found := typed_column(rows.schema, name))}
    array = typed_column(rows.schema, explode.column) if explode else None
    if explode and array:
        _require_kind(array, explode, source.where)
    there = _there(rows, [*columns, *source.beside], names, array, explode)
    require_columns(source.what, source.where, there, required)
    own = [name for name in own_names(explode, names) if name in columns]
    types = {name: source.nanos.get(name) or columns[name].type.simpleString() for name in own}
    used = [_plain(name, types[name], columns[name].column) for name in own]
    used += [column.alias(name) for name, column in source.beside.items()]
    texts = [columns[n].column for n in own if types[n] == "string"]
    if array and array.type.simpleString() == "string":
        texts.append(array.column)
    valid = F.is_valid_utf8(F.concat_ws("", *texts)) if texts else F.lit(True)
    raw = F.to_json(F.struct(*[F.col(f"`{c}`") for c in rows.columns if c not in source.hidden]))
    large = [(columns[n].column, types[n]) for n in ids if types.get(n) in EXACT]
    fault = F.coalesce(F.when(~valid, NOT_UTF8), *[_too_large(column, type_) for column, type_ in large])
    taken = [F.make_valid_utf8(raw).alias(RAW), fault.alias(FAULT), *source.places, *used]
    if explode is None or array is None:
        return rows.select(*taken)
    return _typed_elements(rows.select(*taken, _elements(array, explode)), explode, array.type, names, ids)


def _too_large(column: Column, type_: str) -> Column:
    return F.when(inexact(column, type_), f"{INEXACT} {type_}")


def _there(
    rows: DataFrame,
    columns_found: Sequence[str],
    names: Sequence[str],
    array: TypedColumn | None,
    explode: Explode | None,
) -> tuple[str, ...]:
    """The columns of typed files, those within others too, and those of elements that are among the names."""
    columns = list(dict.fromkeys([*rows.columns, *columns_found]))
    if explode is None or array is None:
        return tuple(columns)
    inner = _element_type(array.type)
    of_elements = []
    if isinstance(inner, StructType):
        found = [n for n in element_fields(explode, names) if typed_column(inner, n)]
        of_elements = [f"{explode.column}.{n}" for n in found]
    return column_names(explode, list(dict.fromkeys([*columns, explode.column, *of_elements])))


def _element_type(type_: DataType) -> DataType:
    return type_.elementType if isinstance(type_, ArrayType) else type_


def _require_kind(array: TypedColumn, explode: Explode, where: str) -> None:
    """Raises UserError where a column does not hold the elements that it is said to."""
    is_array, of_structs = isinstance(array.type, ArrayType), isinstance(_element_type(array.type), StructType)
    fits = {"structs": is_array and of_structs, "array": is_array, "text": isinstance(array.type, StringType)}
    if not fits[explode.kind]:
        what = f"column {explode.column} is not of the kind {explode.kind}"
        fix = f"it is {array.type.simpleString()[:200]}; change explode.kind"
        raise UserError(what, where=where, fix=fix)


def _elements(array: TypedColumn, explode: Explode) -> Column:
    """The array whose elements become rows."""
    return (split_text(array.column, explode) if explode.kind == "text" else array.column).alias(ELEMENTS)


def _typed_elements(
    rows: DataFrame, explode: Explode, array: DataType, names: Sequence[str], ids: Sequence[str]
) -> DataFrame:
    inner = _element_type(array)

    def of(element: Column) -> dict[str, tuple[Column, str]]:
        if explode.kind != "structs" or not isinstance(inner, StructType):
            return {explode.column: (element, inner.simpleString())}
        found = ((n, typed_column(inner, n, element)) for n in element_fields(explode, names))
        return {f"{explode.column}.{n}": (f.column, f.type.simpleString()) for n, f in found if f}

    def values(element: Column) -> dict[str, Column]:
        return {name: _plain(name, type_, column) for name, (column, type_) in of(element).items()}

    def faults(element: Column) -> list[Column]:
        found = of(element)
        texts = [column for column, type_ in found.values() if type_ == "string"]
        invalid = [F.when(~F.is_valid_utf8(F.concat_ws("", *texts)), NOT_UTF8)] if texts else []
        return invalid + [_too_large(c, type_) for n, (c, type_) in found.items() if n in ids and type_ in EXACT]

    return exploded(rows, explode, FAULT, RAW, values, faults)


def _plain(name: str, type_: str, column: Column | None = None) -> Column:
    column = F.col(f"`{name}`") if column is None else column
    if type_.startswith("nanoseconds"):
        micros = F.timestamp_micros(F.expr(f"`{name}` div 1000"))
        return (micros if type_.endswith("true") else micros.cast("timestamp_ntz")).alias(name)
    if type_ == "date":
        return column.cast("timestamp_ntz").alias(name)
    return (column if type_.startswith("timestamp") else plain(column, type_)).alias(name)
