"""A hundred readers of a list while it is published again and again: each sees one whole night."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import polars as pl
import pytest

from sparkrec.warehouse import store
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import topk_table

pytestmark = pytest.mark.slow

N_USERS, K = 400, 5


def lists(spark, night, version):
    """Lists of one model version, each of whose scores is the version's number."""
    rows = spark.range(N_USERS * K)
    return rows.selectExpr(
        f"DATE '{night}' AS run_date", f"concat('u', id div {K}) AS user_id", f"CAST(id % {K} + 1 AS INT) AS rank",
        "concat('i', id) AS item_id", f"CAST({version} AS FLOAT) AS score", f"'v{version}' AS model_version",
        "'model' AS source",
    )  # fmt: skip


def test_every_reader_sees_one_whole_night(spark, tmp_path):
    warehouse, table, nights = Warehouse(str(tmp_path)), topk_table("als"), [date(2024, 1, 1), date(2024, 1, 2)]
    for night in nights:
        store.replace_night(lists(spark, night, 0), warehouse, table, night)
    stop, seen = threading.Event(), []

    def read():
        while True:
            rows = pl.scan_delta(warehouse.table_path(table)).filter(pl.col("run_date") == nights[1]).collect()
            seen.append((rows.height, rows["user_id"].n_unique(), frozenset(rows["model_version"])))
            if stop.is_set():
                return

    with ThreadPoolExecutor(100) as readers:
        reading = [readers.submit(read) for _ in range(100)]
        for version in range(1, 4):
            store.replace_night(lists(spark, nights[1], version), warehouse, table, nights[1])
        stop.set()
        for future in reading:
            future.result()
    assert {(height, users, len(versions)) for height, users, versions in seen} == {(N_USERS * K, N_USERS, 1)}
    assert len({next(iter(versions)) for _, _, versions in seen}) > 1  # they did read while it was published
    earlier = pl.read_delta(warehouse.table_path(table)).filter(pl.col("run_date") == nights[0])
    assert earlier["model_version"].unique().to_list() == ["v0"]
