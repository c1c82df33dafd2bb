"""Iceberg and Hive's metastore: both are Spark's business, and want a session of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from sparkrec.spark.jars import Jars, fetch

ICEBERG = ("org.apache.iceberg:iceberg-spark-runtime-4.0_2.13:1.10.0",)


@pytest.mark.slow
def test_logs_of_iceberg_and_hive(tmp_path):
    (jar,) = fetch(Jars("iceberg", ICEBERG, Path(__file__).parent / "iceberg.sha256"))
    command = [sys.executable, "-m", "tests.ingest.catalog_session", str(tmp_path), str(jar)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("done: ") == 5
    assert "Exception" not in done.stderr, "nothing is asked of a catalog that it does not know"
