"""ALS: MLlib's time and quality (what the night runs) against ``implicit`` on the same matrix.

    python bench/als.py [--users 6040 --items 3706 --events 1000000 --rank 64 --iterations 10 --runs 1 --cores 2]
    python bench/als.py --data FOLDER [--cutoff 2011-11-09 --half-life 30] …

The matrix is drawn from a random model of low rank with Zipf popularity; for each user a tenth of the items is held
out. With ``--data`` it is that of a shop's invoices (``_invoices.py``), whose rows' weights halve with age, and what
customers bought for the first time after the cutoff is held out. Both sides fit implicit feedback with the same rank
and iterations; MLlib scales its regularisation by counts and implicit does not, so each gets its own (``--reg`` and
``--alpha``, ``--peer-reg`` and ``--peer-alpha``). Quality is the runs' mean Recall@20 of the held-out items over a full
ranking without seen items, both from the engine in ``sparkrec/retrieval/topk.py``; each run has a seed of its own.
The ratio is implicit's median time by MLlib's, so it is far below 1: MLlib's ALS is chosen for what it distributes.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time

import numpy as np
import pandas as pd
from _invoices import read_invoices
from _measure import last_line, machine, say
from pyspark.sql import DataFrame, SparkSession
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from sparkrec.evaluation.ranking import ALL, RankedLists, ranking_metrics
from sparkrec.models.als.settings import AlsConfig
from sparkrec.models.als.train import fit_als
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.retrieval.topk import item_matrix, top_k
from sparkrec.settings.sections import SparkConfig
from sparkrec.spark.session import build_session


def main() -> None:
    """Measures and prints."""
    options = arguments()
    conf = {"spark.driver.memory": options.memory, "spark.sql.shuffle.partitions": str(2 * options.cores)}
    spark = build_session(SparkConfig(master=f"local[{options.cores}]", app_name="bench-als", conf=conf))
    work = tempfile.mkdtemp(prefix="bench-als-")
    try:
        if options.data:
            train, held_out = read_invoices(options.data, options.cutoff, options.half_life)
            options.users, options.items = (int(train[name].max()) + 1 for name in ("user_idx", "item_idx"))
        else:
            train, held_out = draw(options)
        say(f"{options.users} users x {options.items} items, {len(train)} pairs, rank {options.rank}; {machine()}")
        frame = spark.createDataFrame(train).persist()
        truth = spark.createDataFrame(held_out).persist()
        frame.count()
        times: dict[str, list[float]] = {"ours": [], "peer": []}
        recalls: dict[str, list[float]] = {"ours": [], "peer": []}
        for run in range(options.runs):
            for name in times:
                started = time.monotonic()
                fitted = mllib(spark, frame, options, work) if name == "ours" else implicit_als(spark, train, options)
                times[name].append(time.monotonic() - started)
                recalls[name].append(recall(*fitted, frame, truth, options))
                say(f"run {run + 1} {name}: {times[name][-1]:.2f} s, Recall@20 {recalls[name][-1]:.4f}")
            options.seed += 1
        ours_s, peer_s = (statistics.median(times[name]) for name in times)
        last_line(bench="als", ours=ours_s, peer=peer_s, ratio=peer_s / ours_s, unit="s", runs=times,
                  recall={name: statistics.mean(found) for name, found in recalls.items()})  # fmt: skip
    finally:
        spark.stop()
        shutil.rmtree(work, ignore_errors=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    whole = {"users": 6040, "items": 3706, "events": 1_000_000, "rank": 64, "iterations": 10, "runs": 1, "cores": 2}
    for name, value in {**whole, "blocks": 0, "seed": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    for name, number in {"reg": 0.1, "peer-reg": 1.0, "alpha": 1.0, "peer-alpha": 1.0}.items():
        parser.add_argument(f"--{name}", type=float, default=number)
    parser.add_argument("--data", help="a folder of invoices")
    parser.add_argument("--cutoff", default="2011-11-09")
    parser.add_argument("--half-life", type=float, default=30.0)
    parser.add_argument("--memory", default="3g")
    return parser.parse_args()


def draw(options: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Distinct pairs ``(user_idx, item_idx, confidence)``: training and held out."""
    rng = np.random.default_rng(options.seed)
    users = rng.normal(size=(options.users, 8))
    items = rng.normal(size=(options.items, 8)) / np.sqrt(8)
    popular = -0.8 * np.log1p(rng.permutation(options.items))
    each = options.events // options.users
    rows = []
    for user in range(options.users):
        taste = 2 * users[user] @ items.T + popular + rng.gumbel(size=options.items)
        rows.append(np.argpartition(-taste, min(each, options.items - 1))[:each])
    pairs = pd.DataFrame({"user_idx": np.repeat(np.arange(options.users), each), "item_idx": np.concatenate(rows)})
    pairs = pairs.astype("int32").assign(confidence=np.float32(1.0))
    held_out = rng.random(len(pairs)) < 0.1
    return pairs[~held_out], pairs.loc[held_out, ["user_idx", "item_idx"]]


def mllib(
    spark: SparkSession, frame: DataFrame, options: argparse.Namespace, work: str
) -> tuple[DataFrame, ItemMatrix]:
    """User factors and item matrix by MLlib."""
    blocks = options.blocks or options.cores
    config = AlsConfig(rank=options.rank, iterations=options.iterations, reg=options.reg, alpha=options.alpha,
                       user_blocks=blocks, item_blocks=blocks, seed=options.seed)  # fmt: skip
    model = fit_als(frame, config, f"{work}/checkpoints")
    return model.user_factors, item_matrix(model.item_factors, options.items)


def implicit_als(spark: SparkSession, train: pd.DataFrame, options: argparse.Namespace) -> tuple[DataFrame, ItemMatrix]:
    """User factors and item matrix by implicit (Cholesky, all cores)."""
    from implicit.cpu.als import AlternatingLeastSquares

    shape = (options.users, options.items)
    matrix = csr_matrix((train["confidence"], (train["user_idx"], train["item_idx"])), shape=shape)
    model = AlternatingLeastSquares(factors=options.rank, regularization=options.peer_reg, alpha=options.peer_alpha,
                                    iterations=options.iterations, num_threads=options.cores,
                                    random_state=options.seed)  # fmt: skip
    with threadpool_limits(1, "blas"):  # as implicit advises: its own threads are one per core
        model.fit(matrix, show_progress=False)
    rows = pd.DataFrame({"idx": np.arange(options.users, dtype=np.int32), "vector": model.user_factors.tolist()})
    factors = spark.createDataFrame(rows, "idx int, vector array<float>")
    return factors, ItemMatrix(np.asarray(model.item_factors, dtype=np.float32))


def recall(
    users: DataFrame, items: ItemMatrix, seen: DataFrame, truth: DataFrame, options: argparse.Namespace
) -> float:
    """Recall@20 over a full ranking without seen items."""
    queries = users.withColumnRenamed("idx", "user_idx")
    lists = top_k(queries, items, key="user_idx", k=20, seen=seen)
    found = ranking_metrics({"als": RankedLists(lists, options.items)}, truth, [20])
    return next(v.value for v in found["als"][ALL] if v.metric == "recall")


if __name__ == "__main__":
    main()
