"""Broadcasts under the encryption that the shipped cluster settings turn on."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
LISTS = """
import numpy as np
from sparkrec.settings.sections import SparkConfig
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.retrieval.topk import top_k
from sparkrec.spark.session import build_session

conf = {"spark.io.encryption.enabled": "true", "spark.authenticate": "true", "spark.authenticate.secret": "x" * 32,
        "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1", "spark.driver.memory": "1g"}
spark = build_session(SparkConfig(master="local[2]", conf=conf))
assert spark.sparkContext._encryption_enabled
items = np.random.default_rng(1).normal(size=(20_000, 16)).astype(np.float32)  # 1.3 MB: beyond what pickle copies
queries = spark.createDataFrame([(0, items[7].tolist())], "user_idx int, vector array<float>")
best = top_k(queries, ItemMatrix(items / np.linalg.norm(items, axis=1)[:, None]), key="user_idx", k=1)
print("found", best.head()["item_idx"])
spark.stop()
"""


def test_a_large_item_matrix_is_searched_with_encryption_on():
    done = subprocess.run(
        [sys.executable, "-c", LISTS], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "found 7" in done.stdout
