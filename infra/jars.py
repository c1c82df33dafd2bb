"""Fetches Delta's jars with Spark's own resolver, once, and puts them into this environment.

The jars stay in ``${XDG_CACHE_HOME:-~/.cache}/sparkrec/jars/<coordinates>`` and are copied to
``<environment>/share/sparkrec/jars``, where ``sparkrec.spark.session.delta_jars`` finds them: a night needs no network.
``infra/jars.sha256`` has their hashes; ``python infra/jars.py --renew`` writes it after a change of version.
Spark's own settings (``SPARK_CONF_DIR``, e.g. ``spark.jars.ivySettings`` for a mirror) are honoured.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

HASHES = Path(__file__).parent / "jars.sha256"


def main(renew: bool) -> int:
    """Fetches what the cache lacks, checks the hashes, copies the jars."""
    coordinates = _coordinates()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparkrec" / "jars"
    folder = cache / coordinates.replace(":", "_")
    if not folder.is_dir():
        _fetch(coordinates, cache, folder)
    jars = sorted(folder.glob("*.jar"))
    lines = "".join(f"{hashlib.sha256(jar.read_bytes()).hexdigest()}  {jar.name}\n" for jar in jars)
    if renew:
        HASHES.write_text(lines)
    elif lines != HASHES.read_text():
        fix = "remove that folder, or after a change of delta-spark run `.venv/bin/python infra/jars.py --renew`"
        print(f"{folder} does not hold the jars of {HASHES.name}: {fix}", file=sys.stderr)
        return 1
    _install(jars, Path(sys.prefix) / "share" / "sparkrec" / "jars")
    return 0


def _coordinates() -> str:
    """The jar that goes with the installed delta-spark and pyspark, as ``group:artifact:version``."""
    from importlib.metadata import version

    import pyspark

    library = next((Path(pyspark.__file__).parent / "jars").glob("scala-library-*.jar"))
    scala = ".".join(library.stem.removeprefix("scala-library-").split(".")[:2])
    return f"io.delta:delta-spark_{scala}:{version('delta-spark')}"


def _fetch(coordinates: str, cache: Path, folder: Path) -> None:
    """Lets Spark resolve the coordinates into a folder of its own, then moves Delta's jars into the cache."""
    from pyspark.sql import SparkSession

    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        builder = SparkSession.builder.master("local[1]").config("spark.jars.packages", coordinates)
        builder = builder.config("spark.jars.ivy", f"{work}/ivy").config("spark.ui.enabled", "false")
        builder = builder.config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
        builder.getOrCreate().stop()
        jars = list(Path(work, "ivy", "jars").glob("io.delta_*.jar"))  # antlr, the other one, comes with Spark
        if not jars:
            raise RuntimeError(f"no jar of {coordinates} was found")
        found = Path(work) / "found"
        found.mkdir()
        for jar in jars:
            shutil.copy(jar, found)
        try:
            found.rename(folder)
        except OSError:  # another set-up was first
            if not folder.is_dir():
                raise


def _install(jars: list[Path], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for stale in target.glob("*.jar"):
        if stale.name not in {jar.name for jar in jars}:
            stale.unlink()
    for jar in jars:
        if not (target / jar.name).exists() or (target / jar.name).stat().st_size != jar.stat().st_size:
            shutil.copy(jar, target / f"{jar.name}.part")
            (target / f"{jar.name}.part").replace(target / jar.name)


if __name__ == "__main__":
    sys.exit(main("--renew" in sys.argv[1:]))
