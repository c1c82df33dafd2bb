"""Builds the Spark session."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sparkrec.errors import UserError
from sparkrec.log import log_event
from sparkrec.processes import own_ctrl_c, wait_passively
from sparkrec.settings.config import conf_dir
from sparkrec.settings.sections import SparkConfig, StorageConfig
from sparkrec.spark import jars, jvm, sizing
from sparkrec.storage.access import spark_conf
from sparkrec.storage.files import first_line

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What the transforms rely on; a user's settings may add to these, not take them away.
EXTENSIONS = "spark.sql.extensions"
DELTA_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"
REQUIRED_CONF = {
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.legacy.parquet.nanosAsLong": "true",  # else logs with such times, pandas' own, cannot be read at all
}
DEFAULT_CONF = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.dynamicAllocation.enabled": "false",  # Horovod needs its task slots at once
    "spark.databricks.delta.snapshotPartitions": "2",
    # Each call on a column would look up the line of Python that it comes from, for Spark's error messages: four
    # fifths of what the call costs, some seconds a night.
    "spark.python.sql.dataFrameDebugging.enabled": "false",
}


DAEMON_MODULE, DAEMON = "spark.python.daemon.module", "sparkrec.spark.daemon"
JVM_OPTIONS = "spark.driver.defaultJavaOptions"
CLASS_PATH = "spark.driver.extraClassPath"
JARS, PACKAGES = "spark.jars", "spark.jars.packages"
DESCRIPTION = "spark.job.description"  # what Spark calls the property that its pages and listeners show
SECRET = "SPARKREC_SPARK_SECRET"  # environment variable: the secret that driver, executors and daemons share


def archive_path() -> Path:
    """The archive of Spark's classes that the set-up makes (``infra/archive.py``)."""
    return Path(sys.prefix) / "share" / "sparkrec" / "spark.jsa"


def build_session(
    config: SparkConfig,
    log_mb: float | None = None,
    storage: StorageConfig | None = None,
    stores: Iterable[str] = (),
) -> SparkSession:
    """Gets or creates the session.

    Under spark-submit its settings (options, properties file) win over the configuration's, and the master and the
    jars are its own; otherwise the master is all cores of this machine unless configured, the jars are those of the
    set-up, and what the configuration does not set follows from the machine and the log (``sparkrec.spark.sizing``).
    The secret of a standalone cluster comes from the environment (``SPARKREC_SPARK_SECRET``), so that no command line
    and no file of the project holds it; YARN and Kubernetes make their own.

    Args:
        config: Master, name and settings.
        log_mb: How much log there is, in megabytes of plain text; None: not known.
        storage: How the stores are reached.
        stores: The kinds of storage that logs and warehouse are on (``storage.access.stores_of``).

    Raises:
        UserError: No Java, Delta's or a store's jars are missing, or a standalone cluster's secret is.
    """
    from pyspark.sql import SparkSession

    from sparkrec.spark.jvm_names import know_names

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    wait_passively()  # local Python workers inherit it
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    builder = SparkSession.builder.appName(config.app_name)
    try:
        reached = spark_conf(storage or StorageConfig(), stores, os.environ)
        given = _submitted_conf() if submitted else _own_conf(config, stores)
        fitting = {} if submitted or SparkSession.getActiveSession() else _fitting(config, log_mb)
        merged = _merge_conf(DEFAULT_CONF, fitting, reached, config.conf, given)
        merged |= _secret(merged)
        for key, value in merged.items():
            builder = builder.config(key, value)
        if not submitted:
            jvm.start(merged)
        know_names()
        with own_ctrl_c():
            spark = builder.getOrCreate()
    except UserError:
        raise
    except Exception as error:  # the JVM did not start: PySpark raises several kinds
        raise UserError("Spark did not start", where=first_line(error), fix="check Java 17 and spark.conf") from error
    if submitted:  # elsewhere conf/log4j2.properties says what is said
        spark.sparkContext.setLogLevel("ERROR")
    return spark


@contextmanager
def named_jobs(spark: SparkSession, name: str) -> Iterator[None]:
    """Names the jobs that this thread starts meanwhile; within each other the names follow: ``stage: step``.

    Spark keeps the name for each thread: one that starts jobs for another takes it over by
    ``pyspark.inheritable_thread_target``.
    """
    context = spark.sparkContext
    outer = context.getLocalProperty(DESCRIPTION)
    context.setLocalProperty(DESCRIPTION, f"{outer}: {name}" if outer else name)
    try:
        yield
    finally:
        context.setLocalProperty(DESCRIPTION, outer)  # type: ignore[arg-type]  # None takes it away


def jobs_started(spark: SparkSession) -> int:
    """How many jobs the session's context has started since it was made."""
    return int(spark.sparkContext._jsc.sc().dagScheduler().numTotalJobs())  # type: ignore[attr-defined]


def task_slots(spark: SparkSession) -> int:
    """Tasks that can run at once now: cores of ``local[n]``, or of the registered executors."""
    sc = spark.sparkContext._jsc.sc()  # type: ignore[attr-defined]  # not in the Python API
    return int(sc.maxNumConcurrentTasks(sc.resourceProfileManager().defaultResourceProfile()))


def _own_conf(config: SparkConfig, stores: Iterable[str]) -> dict[str, str]:
    """Master and jars of a session that this process starts itself; Delta's come too, unless the user names theirs."""
    master = {"spark.master": config.master or f"local[{sizing.this_machine().cores}]"}
    named = f"{config.conf.get(JARS, '')} {config.conf.get(PACKAGES, '')}"
    ours = [] if "delta-spark" in named else jars.delta_jars()
    if not ours and "delta-spark" not in named:
        raise UserError("Delta's jars are missing", where=sys.prefix, fix="run make setup")
    ours += jars.store_jars(stores, named)
    if _local_cores(config.master) is None:
        theirs = [name for name in config.conf.get(JARS, "").split(",") if name]
        return {**master, JARS: ",".join([*theirs, *(str(jar) for jar in ours)])} if ours else master
    # The executor is this JVM: on its class path the jars need not be copied for it, and come from the archive.
    theirs = [config.conf[CLASS_PATH]] if CLASS_PATH in config.conf else []
    return {**master, CLASS_PATH: ":".join([*theirs, *(str(jar) for jar in ours)])} if ours else master


def _fitting(config: SparkConfig, log_mb: float | None) -> dict[str, str]:
    """What follows from the machine and the log, where the session is of this machine alone; the user's own wins."""
    options = (*jvm.log_options(conf_dir() / "log4j2.properties"), *jvm.archive_options(archive_path()))
    cores = _local_cores(config.master)
    if cores is None:
        return {JVM_OPTIONS: " ".join(options)}
    machine = sizing.Machine(cores, sizing.this_machine().memory_mb)
    settings = {**sizing.settings(machine, log_mb), DAEMON_MODULE: DAEMON}  # here the package is sure to be
    users = {*config.conf, *_defaults_file()}
    kept = sorted(users & settings.keys())
    log_event(
        "session", cores=cores, memory_mb=machine.memory_mb, log_mb="unknown" if log_mb is None else round(log_mb),
        fit_for="few rows" if sizing.is_small(log_mb) else "many rows", heap=settings["spark.driver.memory"],
        partitions=settings["spark.sql.shuffle.partitions"], set_otherwise=kept,
    )  # fmt: skip
    return {**{name: settings[name] for name in settings.keys() - kept}, JVM_OPTIONS: " ".join(options)}


def _defaults_file() -> set[str]:
    """Names of the settings in the user's ``spark-defaults.conf``, which Spark reads when it starts."""
    folder = os.environ.get("SPARK_CONF_DIR") or f"{os.environ.get('SPARK_HOME', '')}/conf"
    try:
        lines = Path(folder, "spark-defaults.conf").read_text().splitlines()
    except OSError:
        return set()
    return {re.split(r"[\s=:]", line.strip())[0] for line in lines if line.strip() and not line.strip().startswith("#")}


def _local_cores(master: str | None) -> int | None:
    """Cores of ``local``, ``local[n]``, ``local[n,f]`` and ``local[*]``; None of a cluster."""
    found = re.fullmatch(r"local(?:\[(\d+|\*)(?:,\s*\d+)?\])?", master or "local[*]")
    if found is None:
        return None
    n = found[1]
    return sizing.this_machine().cores if n == "*" else int(n or 1)


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
