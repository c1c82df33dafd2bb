"""Makes the JVM's archive of the classes that a night loads: ``<environment>/share/sparkrec/spark.jsa``.

Spark loads and verifies some 20,000 classes before a night has done anything. From the archive (class data sharing,
JEP 350) the JVM maps them into memory as they are. It fits one Java, one set of jars and their order: where anything
differs the JVM goes on without it and says nothing, so it is never wrong, only of no use. Run at set-up, after
``jars.py``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from sparkrec.makelog import LogOptions, make_log
from sparkrec.settings.config import load_config
from sparkrec.spark.session import JVM_OPTIONS, archive_path


def main() -> int:
    """Runs the stages of a small night in a JVM that writes the archive as it ends."""
    with tempfile.TemporaryDirectory() as work:
        made = Path(work, "spark.jsa")
        subprocess.run([sys.executable, __file__, work, str(made)], check=True)
        target = archive_path()
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        part.write_bytes(made.read_bytes())
        part.replace(target)
    return 0


def exercise(work: str, made: str) -> None:
    """What most nights do: take a log in, number and prepare it."""
    from pyspark import SparkContext

    from sparkrec.pipeline.nightly import Choice, run_nightly

    log = make_log(LogOptions("invoices", 300, users=20, items=10, days=2), Path(work, "made"))
    options = f"-XX:ArchiveClassesAtExit={made} -Xlog:disable -Xlog:all=error:stderr"
    config = load_config(None, [
        f"logs.path={log.log_path}", "logs.format=invoices", f"warehouse.path={work}/warehouse",
        f"spark.conf={{{JVM_OPTIONS}: '{options}', spark.driver.host: 127.0.0.1, spark.driver.bindAddress: 127.0.0.1}}",
    ])  # fmt: skip
    run_nightly(config, "2024-01-02", Choice(only=("ingest", "index", "prepare")))
    gateway = SparkContext._gateway  # type: ignore[attr-defined]
    gateway.proc.stdin.close()  # the JVM ends when its standard input does, and then writes the archive
    gateway.proc.wait()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        exercise(*sys.argv[1:])
    else:
        sys.exit(main())
