"""Top-K lists on Spark: this engine against MLlib's ``recommendForAllUsers`` and an anti-join, to a Delta table.

    python bench/topk.py [--users 200000 --items 50000 --rank 64 --k 100 --seen 20 --runs 3 --cores 2 --memory 4g]

Both sides start from the same user and item factors and the same table of seen pairs (Parquet), run in the same
Spark session in turn, and write ``(user_idx, item_idx, rank, score)`` without seen items to a Delta table. MLlib
cannot leave seen items out: it is asked for ``k`` plus the largest number of items that a user has seen, an anti-join
takes the seen ones out, and a window keeps ``k``. The lists are compared. Ratio: MLlib's median time by ours.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
from _measure import last_line, machine, say
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from sparkrec.config import SparkConfig
from sparkrec.retrieval.topk import item_matrix, top_k
from sparkrec.spark import build_session


def main() -> None:
    """Measures and prints."""
    options = arguments()
    spark = session(options)
    work = tempfile.mkdtemp(prefix="bench-topk-")
    try:
        say(f"{options.users} users x {options.items} items, rank {options.rank}, top {options.k}; {machine()}")
        prepare(spark, options, work)
        sides: dict[str, Callable[[], float]] = {
            "ours": lambda: timed(lambda: ours(spark, options, work), f"{work}/ours"),
            "peer": lambda: timed(lambda: peer(spark, options, work), f"{work}/peer"),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        for run in range(options.runs):
            for name, side in sides.items():
                cpu = cpu_seconds()
                times[name].append(side())
                say(f"run {run + 1} {name}: {times[name][-1]:.2f} s, CPU {cpu_seconds() - cpu:.1f} s")
        say(compare(spark, work, options))
        ours_s, peer_s = (statistics.median(times[name]) for name in ("ours", "peer"))
        last_line(bench="topk", ours=ours_s, peer=peer_s, ratio=peer_s / ours_s, unit="s", runs=times)
    finally:
        spark.stop()
        shutil.rmtree(work, ignore_errors=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"users": 20_000, "items": 10_000, "rank": 64, "k": 100, "seen": 20, "runs": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--memory", default="4g")
    parser.add_argument("--block-mb", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def session(options: argparse.Namespace) -> SparkSession:
    """One session for both sides."""
    conf = {"spark.driver.memory": options.memory, "spark.sql.shuffle.partitions": str(4 * options.cores)}
    return build_session(SparkConfig(master=f"local[{options.cores}]", app_name="bench-topk", conf=conf))


def prepare(spark: SparkSession, options: argparse.Namespace, work: str) -> None:
    """Random factors, and seen pairs: up to ``2 * seen`` random items for each user."""
    rng = np.random.default_rng(options.seed)
    for name, n in (("users", options.users), ("items", options.items)):
        vectors = rng.normal(size=(n, options.rank)).astype(np.float32)
        rows = spark.createDataFrame(
            [(i, vector) for i, vector in enumerate(vectors.tolist())], "idx int, vector array<float>"
        )
        rows.write.parquet(f"{work}/{name}")
    counts = F.sequence(F.lit(1), F.greatest(F.lit(1), (F.rand(options.seed) * 2 * options.seen).cast("int")))
    pairs = spark.range(options.users).select(F.col("id").cast("int").alias("user_idx"), F.explode(counts).alias("n"))
    item = (F.rand(options.seed + 1) * options.items).cast("int").alias("item_idx")
    pairs.select("user_idx", item).distinct().write.parquet(f"{work}/seen")
    say(f"seen pairs: {spark.read.parquet(f'{work}/seen').count()}")


def timed(lists: Callable[[], DataFrame], path: str) -> float:
    """Seconds from the factors on disk to the Delta table."""
    started = time.monotonic()
    lists().write.format("delta").mode("overwrite").save(path)
    return time.monotonic() - started


def cpu_seconds() -> float:
    """CPU time of this process and all below it so far: steadier than wall time on a shared machine."""
    here = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in [here, *here.children(recursive=True)])


def ours(spark: SparkSession, options: argparse.Namespace, work: str) -> DataFrame:
    """The engine."""
    queries = spark.read.parquet(f"{work}/users").withColumnRenamed("idx", "user_idx")
    items = item_matrix(spark.read.parquet(f"{work}/items"), options.items)
    seen = spark.read.parquet(f"{work}/seen")
    return top_k(queries, items, key="user_idx", k=options.k, seen=seen, block_mb=options.block_mb)


def peer(spark: SparkSession, options: argparse.Namespace, work: str) -> DataFrame:
    """MLlib's ``recommendForAllUsers``, then what it takes to leave out seen items."""
    seen = spark.read.parquet(f"{work}/seen")
    most = seen.groupBy("user_idx").count().agg(F.max("count")).first()[0]  # type: ignore[index]
    users, items = (spark.read.parquet(f"{work}/{n}").toDF("id", "features") for n in ("users", "items"))
    model = mllib_model(spark, options.rank, users, items)
    best = model.recommendForAllUsers(options.k + most)
    flat = best.select("user_idx", F.explode("recommendations").alias("r"))
    flat = flat.select("user_idx", F.col("r.item_idx"), F.col("r.rating").alias("score"))
    left = flat.join(seen, ["user_idx", "item_idx"], "left_anti")
    order = Window.partitionBy("user_idx").orderBy(F.desc("score"), "item_idx")
    ranked = left.withColumn("rank", F.row_number().over(order)).where(F.col("rank") <= options.k)
    return ranked.select("user_idx", "item_idx", "rank", "score")


def mllib_model(spark: SparkSession, rank: int, users: DataFrame, items: DataFrame) -> Any:
    """An ``ALSModel`` of given factors, made by MLlib's own constructor."""
    from pyspark.ml.recommendation import ALSModel

    java = spark._jvm.org.apache.spark.ml.recommendation.ALSModel("bench", rank, users._jdf, items._jdf)  # type: ignore
    model = ALSModel(java)
    model._resetUid("bench")
    java.setUserCol("user_idx")
    java.setItemCol("item_idx")
    return model


def compare(spark: SparkSession, work: str, options: argparse.Namespace) -> str:
    """How far the two tables agree."""
    mine, theirs = (spark.read.format("delta").load(f"{work}/{name}") for name in ("ours", "peer"))
    rows = mine.count(), theirs.count()
    same = mine.join(theirs, ["user_idx", "item_idx"], "left_semi").count()
    seen = mine.join(spark.read.parquet(f"{work}/seen"), ["user_idx", "item_idx"], "left_semi").count()
    return f"rows {rows[0]} and {rows[1]}, in both {same} ({same / max(rows):.5f}); seen items in ours: {seen}"


if __name__ == "__main__":
    main()
