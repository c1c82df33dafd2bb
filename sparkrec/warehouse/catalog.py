"""Registers the warehouse's tables in a catalog, so that ``select * from rec.topk_als`` works from any client of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sparkrec.errors import UserError
from sparkrec.log import log_event
from sparkrec.storage.files import first_line
from sparkrec.warehouse import store
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import TABLES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def check_name(schema: str) -> None:
    """Refuses what is no ``schema`` or ``catalog.schema``; the name becomes part of a statement.

    Raises:
        UserError: It is none.
    """
    if not re.fullmatch(r"\w+(\.\w+)?", schema, re.ASCII):
        raise UserError("no name of a schema", where=f"warehouse.catalog={schema}", fix="for example main.rec, or rec")


def register(spark: SparkSession, warehouse: Warehouse, schema: str) -> list[str]:
    """Makes the schema, and in it a table for each of the warehouse's that exists and is not there yet.

    The tables' rows, comments and history stay where they are: what is registered is their place.

    Args:
        spark: The session, with the catalog configured.
        warehouse: Where the tables are.
        schema: ``schema``, or ``catalog.schema``.

    Returns:
        The names of the tables that were registered.

    Raises:
        UserError: The catalog refuses, or has a table of such a name that lies elsewhere.
    """
    check_name(schema)
    made = []
    try:
        spark.sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        for table in TABLES.values():
            name, path = f"{schema}.{table.name}", warehouse.table_path(table)
            if not store.exists(spark, warehouse, table):
                continue
            if not spark.catalog.tableExists(name):
                spark.catalog.createTable(name, path=path, source="delta")
                made.append(table.name)
            elif (there := _location(spark, name)) != _plain(path):
                raise UserError("the catalog has another table of this name", where=f"{name} at {there}", fix="drop it")
    except UserError:
        raise
    except Exception as error:  # catalogs raise many kinds
        fix = f"{first_line(error)}; see warehouse.catalog and spark.conf"
        raise UserError("tables cannot be registered in the catalog", where=schema, fix=fix) from error
    if made:
        log_event("tables registered", schema=schema, tables=made)
    return made


def _location(spark: SparkSession, name: str) -> str:
    from delta.tables import DeltaTable

    row = DeltaTable.forName(spark, name).detail().select("location").head()
    assert row is not None  # the details of a table are one row
    return _plain(str(row["location"]))


def _plain(path: str) -> str:
    from urllib.parse import unquote

    return unquote(re.sub("^file:/+", "/", path)).rstrip("/")
