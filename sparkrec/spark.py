"""Builds the Spark session."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sparkrec.config import SparkConfig
from sparkrec.errors import UserError
from sparkrec.processes import wait_passively

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What the transforms rely on; a user's settings may add to these, not take them away.
EXTENSIONS = "spark.sql.extensions"
DELTA_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"
REQUIRED_CONF = {
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


SECRET = "SPARKREC_SPARK_SECRET"  # environment variable: the secret that driver, executors and daemons share


def delta_jars() -> list[Path]:
    """Delta's jars as fetched at set-up (``<environment>/share/sparkrec/jars``); empty when there are none."""
    return sorted((Path(sys.prefix) / "share" / "sparkrec" / "jars").glob("*.jar"))


def build_session(config: SparkConfig) -> SparkSession:
    """Gets or creates the session.

    Under spark-submit its settings (options, properties file) win over the configuration's, and the master and the
    jars are its own; otherwise the master is ``local[*]`` unless configured, and the jars are those of the set-up.
    The secret of a standalone cluster comes from the environment (``SPARKREC_SPARK_SECRET``), so that no command line
    and no file of the project holds it; YARN and Kubernetes make their own.

    Raises:
        UserError: No Java, Delta's jars are missing, or a standalone cluster's secret is.
    """
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    wait_passively()  # local Python workers inherit it
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    builder = SparkSession.builder.appName(config.app_name)
    try:
        given = _submitted_conf() if submitted else _own_conf(config)
        merged = _merge_conf(DEFAULT_CONF, config.conf, given)
        for key, value in {**merged, **_secret(merged)}.items():
            builder = builder.config(key, value)
        spark = builder.getOrCreate()
    except UserError:
        raise
    except Exception as error:  # the JVM did not start: PySpark raises several kinds
        raise UserError("Spark did not start", where=_first_line(error), fix="check Java 17 and spark.conf") from error
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _own_conf(config: SparkConfig) -> dict[str, str]:
    """Master and jars of a session that this process starts itself."""
    master = {"spark.master": config.master or "local[*]"}
    if "spark.jars" in config.conf or "spark.jars.packages" in config.conf:
        return master
    jars = delta_jars()
    if not jars:
        raise UserError("Delta's jars are missing", where=sys.prefix, fix="run make setup")
    return {**master, "spark.jars": ",".join(str(jar) for jar in jars)}


def _submitted_conf() -> dict[str, str]:
    """What spark-submit was given, by options and properties file; it has started the JVM already."""
    from pyspark import SparkConf, SparkContext

    SparkContext._ensure_initialized()  # type: ignore[attr-defined]  # connects to that JVM
    return {key: value for key, value in SparkConf().getAll() if key != "spark.app.name"}


def _merge_conf(*layers: dict[str, str]) -> dict[str, str]:
    """Settings of the layers, later wins, and what the transforms rely on above all."""
    merged = {key: value for layer in layers for key, value in layer.items()}
    extensions = [name for name in merged.get(EXTENSIONS, "").split(",") if name]
    if DELTA_EXTENSION not in extensions:
        extensions.append(DELTA_EXTENSION)
    return {**merged, **REQUIRED_CONF, EXTENSIONS: ",".join(extensions)}


def _secret(conf: dict[str, str]) -> dict[str, str]:
    """The secret that a standalone cluster with authentication asks for."""
    standalone = conf.get("spark.master", "").startswith("spark:")
    if not standalone or conf.get("spark.authenticate") != "true" or "spark.authenticate.secret" in conf:
        return {}
    if not os.environ.get(SECRET):
        fix = f"export {SECRET}=… with the secret of the cluster's master and workers"
        raise UserError("Spark's authentication is on, but there is no secret", where=conf["spark.master"], fix=fix)
    return {"spark.authenticate.secret": os.environ[SECRET]}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
