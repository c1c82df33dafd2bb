"""The JVM of a session: started quietly where this process makes it itself, and asked once for each name."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py4j.java_gateway import JavaPackage, JVMView

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


class KnownNames(JVMView):  # type: ignore[misc]  # Py4J has no types
    """A JVM's names, each looked up once.

    PySpark asks for the same few names with every call on a table, and for most the JVM walks through all its jars, as
    the packages that it tries first do not have them: a tenth of what a small night takes.
    """

    def __getattr__(self, name: str) -> Any:
        """A class or a package."""
        return _keep(self, name, super().__getattr__(name))


class _KnownPackage(JavaPackage):  # type: ignore[misc]
    def __getattr__(self, name: str) -> Any:
        return _keep(self, name, super().__getattr__(name))


def _keep(owner: object, name: str, found: Any) -> Any:
    """Keeps what was found as an attribute; what no class is called by yet is a package to Py4J, however written."""
    if isinstance(found, JavaPackage):
        if not name.islower():
            return found
        found = _KnownPackage(found._fqn, found._gateway_client, jvm_id=found._jvm_id)
    owner.__dict__[name] = found
    return found


def know_names() -> None:
    """Lets PySpark's connection to its JVM remember names; there is one for each process."""
    from pyspark import SparkContext

    gateway: Any = SparkContext._gateway  # type: ignore[attr-defined]
    if not isinstance(gateway.jvm, KnownNames):
        names = KnownNames.__new__(KnownNames)
        names.__dict__.update(vars(gateway.jvm))
        gateway.jvm = SparkContext._jvm = names  # type: ignore[attr-defined]


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
