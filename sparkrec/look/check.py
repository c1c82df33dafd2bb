"""``sparkrec look --check``: the whole log taken in by a night's own ingest, into a warehouse that is thrown away."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, TextIO

from sparkrec.exits import OK
from sparkrec.ingest import ingest
from sparkrec.log import setup_logging
from sparkrec.look.run import look
from sparkrec.settings.config import load_config
from sparkrec.spark.session import build_session
from sparkrec.storage.access import stores_of
from sparkrec.warehouse.location import Warehouse

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def check(log: str, out_dir: str, out: TextIO, spark: SparkSession | None = None) -> int:
    """Looks at a log and takes it in, dry: prints what came of every row.

    Args:
        log: File or folder of the raw logs.
        out_dir: Folder for ``format.yaml`` and ``night.yaml``.
        out: Where to print.
        spark: The caller's session; without one a session is built, and stopped at the end.

    Raises:
        UserError: As :func:`sparkrec.look.look` and :func:`sparkrec.ingest.ingest` raise it.
    """
    setup_logging()
    fmt, night, run_date = look(log, out_dir, out)
    with tempfile.TemporaryDirectory(prefix="sparkrec-look-") as folder:
        config = load_config(str(night), [f"warehouse.path={folder}/warehouse", "ingest.allow_empty_day=true"])
        config = replace(config, ingest=replace(config.ingest, max_quarantine_share=1.0))
        stores = stores_of(config.logs.places)
        session = spark or build_session(config.spark, storage=config.storage, stores=stores)
        try:
            done = ingest(session, config, fmt, "look", date.max, Warehouse(config.warehouse.path))
        finally:
            if spark is None:
                session.stop()
    print(
        f"checked: {done.files_new:,} files, {done.rows_read:,} rows read = {done.rows_kept:,} kept + "
        f"{done.rows_quarantined:,} refused + {done.rows_duplicate:,} duplicates",
        file=out,
    )
    for reason, n in done.reasons.items():
        print(f"refused: {reason}: {n:,}", file=out)
    print(f"sparkrec nightly --conf {night} --run-date {run_date}", file=out)
    return OK
