"""The data files of a small Delta table, as its log notes them beside a commit: read without a job to find them.

Delta finds the files of a version by a query of its own over the log: some four small jobs for each version that a
night looks at, and one for each look. For a table of a few files its checksum (``<version>.crc``) lists them all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from sparkrec.storage.files import literal_path

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MOST_FILES = 32  # Spark looks for more files in a job of its own


@dataclass(frozen=True)
class DataFiles:
    """What a version of a table consists of: files, by path below the table's folder, and the schema (Spark's JSON)."""

    paths: tuple[str, ...]
    schema: dict[str, Any]


def data_files(checksum: dict[str, Any]) -> DataFiles | None:
    """The files that a checksum lists; None where it does not list all, or where plain Parquet is not what they are.

    Those of another reader version may have renamed columns or rows deleted beside the file. A writer other than
    Delta's own on Spark leaves no checksum.
    """
    files, protocol = checksum.get("allFiles"), checksum.get("protocol", {})
    if not files or len(files) > MOST_FILES or len(files) != checksum.get("numFiles"):
        return None
    paths = [str(file["path"]) for file in files]
    inside = not any(path.startswith("/") or ":" in path.split("/")[0] for path in paths)  # else of another folder
    if not inside or protocol.get("minReaderVersion") != 1 or any(file.get("deletionVector") for file in files):
        return None
    return DataFiles(tuple(unquote(path) for path in paths), json.loads(checksum["metadata"]["schemaString"]))


def read_files(spark: SparkSession, table_path: str, files: DataFiles) -> DataFrame:
    """The rows of a table's files, in the columns of the table."""
    from pyspark.sql.types import StructType

    schema = StructType.fromJson(files.schema)
    paths = [literal_path(f"{table_path}/{path}") for path in files.paths]
    rows = spark.read.schema(schema).option("basePath", table_path).parquet(*paths)
    return rows if rows.columns == schema.names else rows.select(*schema.names)
