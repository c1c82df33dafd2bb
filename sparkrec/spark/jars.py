"""Delta's jars and those of object stores: which ones, fetched by Spark's own resolver, held against their hashes.

They stay in ``${XDG_CACHE_HOME:-~/.cache}/sparkrec/jars/<name>_<version>`` and are copied to
``<environment>/share/sparkrec/jars`` (a store's into a folder of its own), so that a night needs no network.
``conf/jars/<name>.sha256`` has the hashes. Spark's own settings (``SPARK_CONF_DIR``, e.g. ``spark.jars.ivySettings``
for a mirror) are honoured.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from sparkrec.errors import UserError
from sparkrec.settings.config import conf_dir
from sparkrec.storage.places import AZURE, GCS, S3

DELTA = "delta"
_AWS_SDK = "2.25.53"  # of hadoop-aws 3.4: its parts, 12 MB, in place of its bundle of all of Amazon's services, 558 MB
_SDK_PARTS = ("s3", "s3-transfer-manager", "sts", "sso", "ssooidc")
_NETTY = ("buffer", "codec", "codec-http", "codec-http2", "common", "handler", "resolver", "transport",
          "transport-classes-epoll", "transport-native-unix-common")  # fmt: skip
# What Spark brings itself, in versions of its own.
_SPARKS = (
    *(f"io.netty:netty-{part}" for part in _NETTY), "org.apache.httpcomponents:httpclient",
    "org.apache.httpcomponents:httpcore", "commons-codec:commons-codec", "commons-logging:commons-logging",
    "org.slf4j:slf4j-api", "org.apache.hadoop:hadoop-client-api", "org.apache.hadoop:hadoop-client-runtime",
    "com.google.guava:guava", "com.fasterxml.jackson.core:jackson-core", "software.amazon.awssdk:bundle",
    "org.antlr:antlr4-runtime",
)  # fmt: skip


@dataclass(frozen=True)
class Jars:
    """A set of jars: what to ask Spark's resolver for, and the hashes of what it finds."""

    name: str
    coordinates: tuple[str, ...]  # group:artifact:version
    hashes: Traversable

    @property
    def version(self) -> str:
        """A short name of the coordinates."""
        return hashlib.sha256(" ".join(self.coordinates).encode()).hexdigest()[:8]


def delta_jars() -> list[Path]:
    """Delta's jars as fetched at set-up; empty when there are none."""
    return sorted(_installed().glob("*.jar"))


def store_jars(stores: Iterable[str], named: str = "") -> list[Path]:
    """The jars of the kinds of storage in use, as ``sparkrec jars --with`` has fetched them.

    Args:
        stores: Of ``storage.places``; those that Spark knows by itself need none.
        named: Jars and packages that the user has named; a store that is among them needs none of ours either.

    Raises:
        UserError: They have not been fetched.
    """
    found: list[Path] = []
    for store in sorted(set(stores) & CONNECTORS.keys()):
        if CONNECTORS[store] in named or _spark_has(CONNECTORS[store]):
            continue
        jars = sorted((_installed() / store).glob("*.jar"))
        if not jars:
            raise UserError(
                f"Spark's jars for {store} are missing", where=sys.prefix, fix=f"sparkrec jars --with {store}"
            )
        found += jars
    return found


CONNECTORS = {S3: "hadoop-aws", GCS: "gcs-connector", AZURE: "hadoop-azure"}  # the artifact that makes Spark know it


def jars_of(name: str) -> Jars:
    """The jars of Delta or of a store, in the versions that go with the installed pyspark and delta-spark.

    Raises:
        UserError: There is no such set.
    """
    hadoop = _version_in_spark("hadoop-client-api-")
    coordinates = {
        S3: (f"org.apache.hadoop:hadoop-aws:{hadoop}", *(f"software.amazon.awssdk:{p}:{_AWS_SDK}" for p in _SDK_PARTS)),
        GCS: ("com.google.cloud.bigdataoss:gcs-connector:hadoop3-2.2.26",),
        AZURE: (f"org.apache.hadoop:hadoop-azure:{hadoop}",),
        DELTA: (_delta(),),
    }
    if name not in coordinates:
        raise UserError("no such store", where=name, fix=f"one of {', '.join(sorted(CONNECTORS))}")
    return Jars(name, coordinates[name], conf_dir() / "jars" / f"{name}.sha256")


def fetch(jars: Jars, renew: bool = False) -> list[Path]:
    """Fetches what the cache lacks, checks the hashes, and copies the jars into this environment.

    Args:
        jars: Which.
        renew: Write the hashes instead of checking them, after a change of version.

    Returns:
        The jars in the environment.

    Raises:
        UserError: They cannot be fetched, or are not those that were pinned.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparkrec" / "jars"
    folder = cache / f"{jars.name}_{jars.version}"
    if not folder.is_dir():
        _resolve(jars, cache, folder)
    found = sorted(folder.glob("*.jar"))
    lines = "".join(f"{hashlib.sha256(jar.read_bytes()).hexdigest()}  {jar.name}\n" for jar in found)
    if renew:
        Path(str(jars.hashes)).write_text(lines)
    elif lines != jars.hashes.read_text():
        fix = f"remove that folder, or after a change of version: sparkrec jars --with {jars.name} --renew"
        raise UserError(f"not the jars of {jars.name} that were pinned", where=str(folder), fix=fix)
    target = _installed() / ("" if jars.name == DELTA else jars.name)
    _install(found, target)
    return sorted(target.glob("*.jar"))


def _resolve(jars: Jars, cache: Path, folder: Path) -> None:
    """Lets Spark resolve the coordinates in a process of its own, then moves the jars into the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        code = f"from sparkrec.spark.jars import resolve; resolve({list(jars.coordinates)!r}, {work!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        found = Path(work, "ivy", "jars")
        if done.returncode or not any(found.glob("*.jar")):
            lines = [line for line in done.stderr.splitlines() if line.strip() and not line.strip().startswith("at ")]
            reason = next((line for line in lines if "unresolved" in line), lines[-1] if lines else "nothing was found")
            raise UserError(
                f"jars of {jars.name} cannot be fetched", where=" ".join(jars.coordinates), fix=reason[:300]
            )
        try:
            found.rename(folder)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise


def resolve(coordinates: list[str], work: str) -> None:
    """Starts a session that asks for the coordinates; the jars are then in ``<work>/ivy/jars``."""
    from pyspark.sql import SparkSession

    conf = {
        "spark.jars.packages": ",".join(coordinates),
        "spark.jars.excludes": ",".join(_SPARKS),
        "spark.jars.ivy": f"{work}/ivy",
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    builder = SparkSession.builder.master("local[1]")
    for key, value in conf.items():
        builder = builder.config(key, value)
    builder.getOrCreate().stop()


def _installed() -> Path:
    return Path(sys.prefix) / "share" / "sparkrec" / "jars"


def _install(jars: Iterable[Path], target: Path) -> None:
    jars = list(jars)
    target.mkdir(parents=True, exist_ok=True)
    for stale in target.glob("*.jar"):
        if stale.name not in {jar.name for jar in jars}:
            stale.unlink()
    for jar in jars:
        if not (target / jar.name).exists() or (target / jar.name).stat().st_size != jar.stat().st_size:
            shutil.copy(jar, target / f"{jar.name}.part")
            (target / f"{jar.name}.part").replace(target / jar.name)


def _delta() -> str:
    from importlib.metadata import version

    scala = ".".join(_version_in_spark("scala-library-").split(".")[:2])
    return f"io.delta:delta-spark_{scala}:{version('delta-spark')}"


def _version_in_spark(prefix: str) -> str:
    """The version of a jar that comes with pyspark."""
    return next(_spark_jars().glob(f"{prefix}*.jar")).stem.removeprefix(prefix)


def _spark_has(artifact: str) -> bool:
    return any(_spark_jars().glob(f"{artifact}*.jar"))


def _spark_jars() -> Path:
    import pyspark

    return Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent) / "jars"
