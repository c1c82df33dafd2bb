"""Top-K lists on Spark: this engine against MLlib's ``recommendForAllUsers`` and against faiss, to a Delta table.

    python bench/topk.py [--users 200000 --items 50000 --rank 64 --k 100 --seen 20 --runs 3 --cores 2 --memory 4g]
    python bench/topk.py … --peers faiss
    python bench/topk.py --users 1000000 … --peers

All sides start from the same user and item factors and the same table of seen pairs (Parquet), take turns, and write
``(user_idx, item_idx, rank, score)`` without seen items to a Delta table. MLlib runs in the same Spark session. It
cannot leave seen items out: it is asked for ``k`` plus the largest number of items that a user has seen, an anti-join
takes the seen ones out, and a window keeps ``k``. faiss (an exact ``IndexFlatIP``) runs in this process with as many
threads as Spark has cores, without Spark; it is asked for as many, and numpy takes the seen ones out. The lists are
compared with ours. Ratio: the slowest peer's median time by ours. The peak memory of our side is that of the JVM and
all Python processes together, and of the Python workers alone, sampled once a second.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from _measure import last_line, machine, say
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from sparkrec.retrieval.topk import item_matrix, top_k
from sparkrec.settings.sections import SparkConfig
from sparkrec.spark.session import build_session


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
            "mllib": lambda: timed(lambda: mllib(spark, options, work), f"{work}/mllib"),
            "faiss": lambda: faiss_seconds(options, work),
        }
        sides = {name: side for name, side in sides.items() if name in ("ours", *options.peers)}
        times: dict[str, list[float]] = {name: [] for name in sides}
        for run in range(options.runs):
            for name, side in sides.items():
                cpu = cpu_seconds()
                with peaks() as peak:
                    times[name].append(side())
                say(f"run {run + 1} {name}: {times[name][-1]:.2f} s, CPU {cpu_seconds() - cpu:.1f} s, peak memory "
                    f"{peak['all'] / 2**20:.0f} MiB, of the workers {peak['workers'] / 2**20:.0f} MiB")  # fmt: skip
        for name in options.peers:
            say(compare(spark, work, name))
        medians = {name: statistics.median(found) for name, found in times.items()}
        peer_s = max((medians[name] for name in options.peers), default=None)
        last_line(bench="topk", ours=medians["ours"], peer=peer_s, ratio=peer_s and peer_s / medians["ours"], unit="s",
                  runs=times)  # fmt: skip
    finally:
        spark.stop()
        shutil.rmtree(work, ignore_errors=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"users": 20_000, "items": 10_000, "rank": 64, "k": 100, "seen": 20, "runs": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--peers", nargs="*", choices=["mllib", "faiss"], default=["mllib"])
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
        Path(f"{work}/{name}").mkdir()
        for first in range(0, n, 100_000):
            numbers = np.arange(first, min(first + 100_000, n), dtype=np.int32)
            vectors = rng.normal(size=len(numbers) * options.rank).astype(np.float32)
            ends = np.arange(0, len(vectors) + 1, options.rank, dtype=np.int32)
            table = pa.table({"idx": numbers, "vector": pa.ListArray.from_arrays(ends, vectors)})
            pq.write_table(table, f"{work}/{name}/part-{first}.parquet")
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


@contextlib.contextmanager
def peaks() -> Iterator[dict[str, int]]:
    """The largest resident memory, in bytes, of all processes and of Spark's Python workers while the block runs.

    Pages that processes share count for each of them: to tell them apart would slow down what is measured.
    """
    found, over, here = {"all": 0, "workers": 0}, threading.Event(), psutil.Process()

    def watch() -> None:
        while not over.wait(1.0):
            with contextlib.suppress(psutil.NoSuchProcess):
                workers = [p for jvm in here.children() for p in jvm.children(recursive=True)]
                sizes = [sum(p.memory_info().rss for p in some) for some in ([here, *here.children()], workers)]
                found["workers"] = max(found["workers"], sizes[1])
                found["all"] = max(found["all"], sum(sizes))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def ours(spark: SparkSession, options: argparse.Namespace, work: str) -> DataFrame:
    """The engine."""
    queries = spark.read.parquet(f"{work}/users").withColumnRenamed("idx", "user_idx")
    items = item_matrix(spark.read.parquet(f"{work}/items"), options.items)
    seen = spark.read.parquet(f"{work}/seen")
    return top_k(queries, items, key="user_idx", k=options.k, seen=seen, block_mb=options.block_mb)


def mllib(spark: SparkSession, options: argparse.Namespace, work: str) -> DataFrame:
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


def faiss_seconds(options: argparse.Namespace, work: str) -> float:
    """Seconds of faiss's exact search, from the factors on disk to the Delta table."""
    import faiss
    from deltalake import write_deltalake

    started = time.monotonic()
    faiss.omp_set_num_threads(options.cores)
    users, items = (pq.read_table(f"{work}/{name}") for name in ("users", "items"))
    queries, vectors = (table["vector"].combine_chunks().flatten().to_numpy() for table in (users, items))
    index = faiss.IndexFlatIP(options.rank)
    index.add(vectors.reshape(-1, options.rank))
    numbers = items["idx"].to_numpy()
    seen = pq.read_table(f"{work}/seen")
    taken = np.sort(seen["user_idx"].to_numpy().astype(np.int64) * options.items + seen["item_idx"].to_numpy())
    most = int(np.bincount(seen["user_idx"].to_numpy()).max())

    def batches() -> Iterator[pa.RecordBatch]:
        for first in range(0, len(users), 4096):
            some = slice(first, first + 4096)
            mine = users["idx"].to_numpy()[some]
            scores, places = index.search(queries.reshape(-1, options.rank)[some], options.k + most)
            found = numbers[places]
            pairs = mine[:, None].astype(np.int64) * options.items + found
            known = taken[np.minimum(np.searchsorted(taken, pairs), len(taken) - 1)] == pairs
            rank = np.cumsum(~known, axis=1)
            kept = ~known & (rank <= options.k)
            columns = [np.broadcast_to(mine[:, None], kept.shape), found, rank.astype(np.int32), scores]
            yield pa.record_batch([column[kept] for column in columns], names=["user_idx", "item_idx", "rank", "score"])

    schema = pa.schema([("user_idx", pa.int32()), ("item_idx", pa.int32()), ("rank", pa.int32()),
                        ("score", pa.float32())])  # fmt: skip
    write_deltalake(f"{work}/faiss", pa.RecordBatchReader.from_batches(schema, batches()), mode="overwrite")
    return time.monotonic() - started


def mllib_model(spark: SparkSession, rank: int, users: DataFrame, items: DataFrame) -> Any:
    """An ``ALSModel`` of given factors, made by MLlib's own constructor."""
    from pyspark.ml.recommendation import ALSModel

    java = spark._jvm.org.apache.spark.ml.recommendation.ALSModel("bench", rank, users._jdf, items._jdf)  # type: ignore
    model = ALSModel(java)
    model._resetUid("bench")
    java.setUserCol("user_idx")
    java.setItemCol("item_idx")
    return model


def compare(spark: SparkSession, work: str, peer: str) -> str:
    """How far our table and a peer's agree."""
    mine, theirs = (spark.read.format("delta").load(f"{work}/{name}") for name in ("ours", peer))
    rows = mine.count(), theirs.count()
    same = mine.join(theirs, ["user_idx", "item_idx"], "left_semi").count()
    seen = mine.join(spark.read.parquet(f"{work}/seen"), ["user_idx", "item_idx"], "left_semi").count()
    return f"{peer}: rows {rows[0]} and {rows[1]}, in both {same} ({same / max(rows):.5f}); seen items in ours: {seen}"


if __name__ == "__main__":
    main()
