"""Item neighbours on a shop's invoices against ``implicit``: the same lists, their quality, and the time.

    python bench/neighbours.py --data FOLDER [--neighbours 200 --k1 1.2 --b 0.75 --runs 3 --cores 2]

The folder holds CSV day files with InvoiceNo, StockCode, Quantity, InvoiceDate, UnitPrice and CustomerID. Rows with a
customer, a positive quantity and price, and no cancelled invoice count; the last day files from ``--cutoff`` on are the
truth. Each pair of a customer and a product counts once. Both sides find the BM25 neighbours of all products and the 20
best products of all customers, without those that they bought; ours through Spark, with the neighbours written as
Parquet and read back, implicit's in memory on all cores. A list is the same when it has the same products in the same
order; ties aside, when it has the same scores. Recall@20 is hits by the customer's new products, at most 20.
The ratio is implicit's median time by ours, neighbours and lists together.
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

from sparkrec.evaluation.ranking import ALL, RankedLists, ranking_metrics
from sparkrec.models.neighbours.nearest import (
    item_neighbour_lists,
    item_neighbours,
    load_neighbours,
    matrix_profiles,
    save_neighbours,
)
from sparkrec.models.neighbours.settings import ItemNeighboursConfig
from sparkrec.settings.sections import SparkConfig
from sparkrec.spark.session import build_session

K = 20


def main() -> None:
    """Measures and prints."""
    options = arguments()
    train, truth = read_invoices(options.data, options.cutoff)
    n_users, n_items = (int(train[name].max()) + 1 for name in ("user_idx", "item_idx"))
    say(f"{n_users} customers x {n_items} products, {len(train)} pairs; {machine()}")
    conf = {"spark.driver.memory": "2g", "spark.sql.shuffle.partitions": str(2 * options.cores)}
    spark = build_session(SparkConfig(master=f"local[{options.cores}]", app_name="bench-neighbours", conf=conf))
    work = tempfile.mkdtemp(prefix="bench-neighbours-")
    try:
        frame = spark.createDataFrame(train).persist()
        frame.count()
        times: dict[str, list[float]] = {"ours": [], "peer": []}
        lists: dict[str, pd.DataFrame] = {}
        for run in range(options.runs):
            for name in times:
                started = time.monotonic()
                lists[name] = ours(spark, frame, n_users, n_items, options, work) if name == "ours" else implicit_lists(
                    train, n_users, n_items, options
                )  # fmt: skip
                times[name].append(time.monotonic() - started)
                say(f"run {run + 1} {name}: {times[name][-1]:.2f} s")
        equal, equal_scores = same_lists(lists["ours"], lists["peer"])
        recalls = {name: recall(spark, found, truth, n_items) for name, found in lists.items()}
        say(f"same lists {equal:.4f}, ties aside {equal_scores:.4f}; Recall@{K} {recalls}")
        ours_s, peer_s = (statistics.median(times[name]) for name in times)
        last_line(bench="neighbours", ours=ours_s, peer=peer_s, ratio=peer_s / ours_s, unit="s", runs=times,
                  recall=recalls, same_lists=equal, same_scores=equal_scores)  # fmt: skip
    finally:
        spark.stop()
        shutil.rmtree(work, ignore_errors=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--cutoff", default="2011-11-09")
    for name, number in {"neighbours": 200, "runs": 3, "cores": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    for name, value in {"k1": 1.2, "b": 0.75}.items():
        parser.add_argument(f"--{name}", type=float, default=value)
    return parser.parse_args()


def ours(
    spark: SparkSession, frame: DataFrame, n_users: int, n_items: int, options: argparse.Namespace, work: str
) -> pd.DataFrame:
    """Our lists ``(user_idx, item_idx, rank, score)``."""
    config = ItemNeighboursConfig("bm25", options.neighbours, bm25_k1=options.k1, bm25_b=options.b)
    save_neighbours(item_neighbours(frame, n_users, n_items, config), f"{work}/model", {})
    neighbours, _ = load_neighbours(spark, f"{work}/model", "item_idx")
    seen = frame.select("user_idx", "item_idx")
    lists = item_neighbour_lists(matrix_profiles(frame), neighbours, n_items, key="user_idx", k=K, seen=seen)
    return lists.toPandas()


def implicit_lists(train: pd.DataFrame, n_users: int, n_items: int, options: argparse.Namespace) -> pd.DataFrame:
    """The lists of ``implicit``."""
    from implicit.nearest_neighbours import BM25Recommender

    pairs = (train["user_idx"], train["item_idx"])
    matrix = csr_matrix((train["confidence"].astype("float64"), pairs), shape=(n_users, n_items))
    model = BM25Recommender(K=options.neighbours, K1=options.k1, B=options.b, num_threads=options.cores)
    model.fit(matrix, show_progress=False)
    items, scores = model.recommend(np.arange(n_users), matrix, N=K)
    users, places = np.nonzero((items >= 0) & (scores > 0))
    columns = {"user_idx": users, "item_idx": items[users, places], "rank": places + 1}
    return pd.DataFrame(columns).astype("int32").assign(score=scores[users, places])


def same_lists(one: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float]:
    """The share of users with the same products in the same order, and of those with the same scores."""
    both = one.merge(other, on=["user_idx", "rank"], how="outer", suffixes=("", "_other")).fillna(-1.0)
    item = both["item_idx"] == both["item_idx_other"]
    score = pd.Series(np.isclose(both["score"], both["score_other"], rtol=1e-5))
    return tuple(float(same.groupby(both["user_idx"]).all().mean()) for same in (item, score))  # type: ignore[return-value]


def recall(spark: SparkSession, lists: pd.DataFrame, truth: pd.DataFrame, n_items: int) -> float:
    """Recall@20 of the customers with new products."""
    judged = {"neighbours": RankedLists(spark.createDataFrame(lists), n_items)}
    found = ranking_metrics(judged, spark.createDataFrame(truth), [K])
    return next(v.value for v in found["neighbours"][ALL] if v.metric == "recall")


if __name__ == "__main__":
    main()
