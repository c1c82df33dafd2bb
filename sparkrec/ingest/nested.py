"""Fields within fields: a name with dots goes into objects of JSON and into structs, where no field has it whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StringType, StructField, StructType


class JsonText(NamedTuple):
    """A field of a JSON line as Spark reads it as a string, and the key that it stands at."""

    text: Column
    key: str


class TypedColumn(NamedTuple):
    """A column of a typed file, or a field of one, with its type."""

    column: Column
    type: DataType


def json_schema(names: Sequence[str], types: Mapping[str, DataType] | None = None) -> StructType:
    """What ``from_json`` must read to find fields of these names, as texts or in the types given."""
    types = types or {}
    fields: dict[str, DataType] = {name: types.get(name, StringType()) for name in names}
    for head, inner in _inner(names).items():
        within = {name.removeprefix(f"{head}."): type_ for name, type_ in types.items() if name.startswith(f"{head}.")}
        fields.setdefault(head, json_schema(inner, within))
    return StructType([StructField(name, type_) for name, type_ in fields.items()])


def json_texts(row: Column, names: Sequence[str], name: str) -> list[JsonText]:
    """Where a field may be: under its whole name first, then within others.

    Args:
        row: A struct, read with ``json_schema(names)``.
        names: All names that it was read for.
        name: One of them.
    """
    head, _, rest = name.partition(".")
    found = [JsonText(row[name], name)]
    if not rest:
        return found
    inner = _inner(names)[head]
    within = F.from_json(row[head], json_schema(inner)) if head in names else row[head]
    return found + json_texts(within, inner, rest)


def _inner(names: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        head, _, rest = name.partition(".")
        if rest:
            found.setdefault(head, []).append(rest)
    return found


def typed_column(schema: StructType, name: str, within: Column | None = None) -> TypedColumn | None:
    """The column of a name, or the field of a struct of the first part of the name; None where there is none.

    Args:
        schema: Of the rows, or of a struct.
        name: The name.
        within: The struct.
    """

    def at(own: str) -> Column:
        return F.col(f"`{own}`") if within is None else within[own]

    if name in schema.names:
        return TypedColumn(at(name), schema[name].dataType)
    parts = name.split(".")
    for n in range(len(parts) - 1, 0, -1):
        head, rest = ".".join(parts[:n]), ".".join(parts[n:])
        inner = schema[head].dataType if head in schema.names else None
        if isinstance(inner, StructType):
            return typed_column(inner, rest, at(head))
    return None
