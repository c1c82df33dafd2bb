"""Builds the Spark session."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sparkrec.config import SparkConfig
from sparkrec.errors import UserError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What the transforms rely on; a user's settings may add to these, not take them away.
REQUIRED_CONF = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}
DEFAULT_CONF = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.dynamicAllocation.enabled": "false",  # Horovod needs its task slots at once
    "spark.databricks.delta.snapshotPartitions": "2",
}


def delta_jars() -> list[Path]:
    """Delta's jars as fetched at set-up (``<environment>/share/sparkrec/jars``); empty when there are none."""
    return sorted((Path(sys.prefix) / "share" / "sparkrec" / "jars").glob("*.jar"))


def build_session(config: SparkConfig) -> SparkSession:
    """Gets or creates the session.

    Under spark-submit the master and the jars come from there; otherwise ``local[*]`` unless configured.

    Raises:
        UserError: No Java, or Delta's jars are missing.
    """
    from pyspark.sql import SparkSession

    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(config.app_name)
    if not submitted:
        builder = builder.master(config.master or "local[*]")
    for key, value in {**DEFAULT_CONF, **config.conf, **REQUIRED_CONF}.items():
        builder = builder.config(key, value)
    if not submitted and "spark.jars.packages" not in config.conf and "spark.jars" not in config.conf:
        jars = delta_jars()
        if not jars:
            raise UserError("Delta's jars are missing", where=sys.prefix, fix="run make setup")
        builder = builder.config("spark.jars", ",".join(str(j) for j in jars))
    try:
        spark = builder.getOrCreate()
    except Exception as error:  # the JVM did not start: PySpark raises several kinds
        raise UserError("Spark did not start", fix=str(error).splitlines()[0]) from error
    spark.sparkContext.setLogLevel("ERROR")
    return spark
