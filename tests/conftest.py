"""Fixtures that the whole suite shares."""

import sys
from pathlib import Path

import pytest

from sparkrec.config import SparkConfig

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def spark():
    """The one Spark session of the suite."""
    from sparkrec.spark import build_session

    sys.stderr.flush()
    conf = {
        "spark.driver.memory": "2g",
        "spark.sql.shuffle.partitions": "2",
        "spark.default.parallelism": "2",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    session = build_session(SparkConfig(master="local[2]", app_name="sparkrec-tests", conf=conf))
    yield session
    session.stop()


@pytest.fixture()
def real_data():
    """Folder of real logs beside the checkout; the test is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no real logs beside the checkout")
    return SHARED_DATA
