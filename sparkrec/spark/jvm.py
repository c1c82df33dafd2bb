"""Starts the JVM of a session that this process makes itself: with the project's log settings, and quietly."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# The JVM says this of the vector module that Spark always adds; no option of the JVM keeps it from it.
NOISE = (b"WARNING: Using incubator modules: jdk.incubator.vector",)


def log_options(file: object) -> tuple[str, ...]:
    """The JVM option that names log4j2's settings; none where they are no file of their own (in a zip)."""
    return (f"-Dlog4j2.configurationFile={file.as_uri()}",) if isinstance(file, Path) and file.is_file() else ()


def archive_options(archive: Path) -> tuple[str, ...]:
    """JVM options that map classes from an archive; where it does not fit the JVM goes on without and says nothing."""
    quiet = ("-Xlog:cds=off", "-Xlog:cds+dynamic=off", "-Xlog:class+path=off")
    return ("-Xshare:auto", f"-XX:SharedArchiveFile={archive}", *quiet) if archive.is_file() else ()


def start(conf: Mapping[str, str]) -> None:
    """Starts the JVM with Spark's settings, unless there is one already; ``SparkSession.builder`` then takes it.

    Its standard error goes through this process, which leaves out ``NOISE``.

    Raises:
        PySparkRuntimeError: It did not start.
    """
    from pyspark import SparkConf, SparkContext
    from pyspark.java_gateway import launch_gateway

    if SparkContext._gateway is not None:  # type: ignore[attr-defined]
        return
    reader, writer = os.pipe()
    threading.Thread(target=_pass_on, args=(reader,), name="jvm-stderr", daemon=True).start()
    try:
        given = SparkConf(loadDefaults=False).setAll(list(conf.items()))
        gateway = launch_gateway(given, {"stderr": writer})
    finally:
        os.close(writer)
    SparkContext._ensure_initialized(gateway=gateway)  # type: ignore[attr-defined]


def _pass_on(reader: int) -> None:
    """Copies lines to standard error until the JVM has ended."""
    with os.fdopen(reader, "rb") as lines:
        for line in lines:
            if line.rstrip() not in NOISE:
                os.write(2, line)
