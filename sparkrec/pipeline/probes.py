"""Whether the warehouse's storage does what a night asks of it, tried before the night by each library that uses it.

A small file is written, read, listed, renamed and removed: by Hadoop in the driver, by Python in the driver, and on a
storage that is not this machine's by both in an executor, where the training ranks run, and by delta-rs, which reads
the tables.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sparkrec.errors import UserError
from sparkrec.settings.sections import StorageConfig
from sparkrec.storage import files
from sparkrec.storage.files import first_line
from sparkrec.storage.places import AZURE, GCS, HDFS, LOCAL, S3, Place, place_of
from sparkrec.warehouse import direct

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PROBES = "_probes"  # folder in the warehouse
_FIXES = {
    (S3, "Hadoop"): "sparkrec jars --with s3; storage.endpoint and credentials (AWS_ACCESS_KEY_ID, …)",
    (GCS, "Hadoop"): "sparkrec jars --with gcs; GOOGLE_APPLICATION_CREDENTIALS",
    (AZURE, "Hadoop"): "sparkrec jars --with azure; spark.conf with fs.azure.account.…",
    (S3, "Python"): "storage.endpoint, and AWS_ACCESS_KEY_ID, … in the environment of driver and executors",
    (GCS, "Python"): "GOOGLE_APPLICATION_CREDENTIALS in the environment of driver and executors",
    (AZURE, "Python"): "AZURE_STORAGE_ACCOUNT_NAME, … in the environment of driver and executors",
    (HDFS, "Python"): "HADOOP_CONF_DIR, and pip install sparkrec[stores], on driver and executors",
}


def check_storage(spark: SparkSession, path: str, config: StorageConfig) -> None:
    """Refuses a warehouse whose storage one of the libraries cannot use.

    Args:
        spark: The session.
        path: The warehouse.
        config: How storage is reached.

    Raises:
        UserError: Which of them cannot, and what it wants.
    """
    place = place_of(path)
    _check_default(spark, place)
    if place.store == LOCAL:
        with contextlib.suppress(OSError):  # the attempt below says what is wrong
            os.makedirs(place.inside, mode=0o750, exist_ok=True)  # a new one is closed to others, whatever the umask
    if place.store == LOCAL and place.uri == place.inside:
        with _told(place, "Hadoop in the driver", "Hadoop"):
            _try_hadoop(spark, files.join(place.uri, "_writable"))
        return
    folder = files.join(place.uri, PROBES, uuid.uuid4().hex)
    try:
        with _told(place, "Hadoop in the driver", "Hadoop"):
            _try_hadoop(spark, files.join(folder, "hadoop"))
        with _told(place, "Python in the driver", "Python"):
            _try_python(files.join(folder, "driver"))
        with _told(place, "Spark in an executor", "Hadoop"):
            spark.range(1).write.parquet(files.join(folder, "spark"))
        with _told(place, "Python in an executor", "Python"):
            _try_executor(spark, files.join(folder, "executor"))
        with _told(place, "delta-rs", "Python"):
            _try_delta_rs(files.join(folder, "table"))
        if config.conditional_puts:
            _try_conditions(files.join(folder, "lock"), path)
    finally:
        with contextlib.suppress(UserError, OSError):
            files.remove(folder)


@contextlib.contextmanager
def _told(place: Place, who: str, kind: str) -> Iterator[None]:
    """What is raised as one line: who cannot, why, and what it wants."""
    try:
        yield
    except Exception as error:  # each library raises kinds of its own
        reason = _reason(error)
        fix = _FIXES.get((place.store, kind))
        where = f"{place.uri}: {who}"
        raise UserError(
            "warehouse cannot be written", where=where, fix=f"{reason}; {fix}" if fix else reason
        ) from error


def _reason(error: Exception) -> str:
    """What went wrong, in a line without the place."""
    if isinstance(error, UserError):
        return f"{error.what}: {error.fix}"
    return first_line(getattr(error, "java_exception", error))


def _check_default(spark: SparkSession, place: Place) -> None:
    """Refuses a path without a scheme where Spark would take it for a place on the cluster's own storage."""
    default = str(spark._jsc.hadoopConfiguration().get("fs.defaultFS", "file:///"))  # type: ignore[attr-defined]
    if place.store == LOCAL and place.uri == place.inside and not default.startswith(("file:", "dbfs:")):
        fix = f"write file://{place.inside}, or {default.rstrip('/')}{place.inside}"
        raise UserError("Spark and Python take this path for different places", where=place.inside, fix=fix)


def _try_hadoop(spark: SparkSession, path: str) -> None:
    jvm: Any = spark._jvm
    probe = jvm.org.apache.hadoop.fs.Path(path)
    system = probe.getFileSystem(spark._jsc.hadoopConfiguration())  # type: ignore[attr-defined]
    system.mkdirs(probe.getParent())
    system.create(probe, True).close()
    system.delete(probe, False)


def _try_python(path: str) -> None:
    data = b"probe"
    files.write_bytes(path, data)
    moved = f"{path}.moved"
    if files.read_bytes(path) != data or not files.move(path, moved):
        raise OSError("what was written is not there")
    folder, _, name = moved.rpartition("/")
    if name not in files.list_names(folder):
        raise OSError("what was written is not listed")
    files.remove(moved)
    if files.exists(moved):
        raise OSError("what was removed is still there")


def _try_executor(spark: SparkSession, path: str) -> None:
    def tried(_: Any) -> list[str]:
        try:
            _try_python(path)
        except Exception as error:
            return [_reason(error)]
        return []

    for reason in spark.sparkContext.parallelize([0], 1).mapPartitions(tried).collect():
        raise OSError(reason)


def _try_delta_rs(path: str) -> None:
    import polars as pl
    from deltalake import DeltaTable, write_deltalake

    uri = place_of(path).reader_uri
    write_deltalake(uri, pl.DataFrame({"n": [0]}), storage_options=direct.writing(place_of(path)))
    if DeltaTable(uri).version() != 0:
        raise OSError("what was written is not there")


def _try_conditions(path: str, warehouse: str) -> None:
    """Puts that must fail: without them two nights could both get the lock."""
    first, second = b"first", b"second"
    kept = files.create(path, first) and not files.create(path, second) and not files.replace(path, second, b"third")
    if not kept or files.read_bytes(path) != first or not files.replace(path, first, second):
        fix = "or storage.conditional_puts=false, where nobody else writes to the warehouse while a night runs"
        raise UserError(
            "the store has no conditional puts, so its lock would hold nobody back", where=warehouse, fix=fix
        )
