"""The other networks of the session GRU beside the plain one: Recall@20, MRR@20 and the memory of the weights.

    python bench/gru_variants.py --what text --data FOLDER [--sessions N] [gru.key=value …]
    python bench/gru_variants.py --what users|bloom|cells --data sessions.parquet [--sessions N] [gru.key=value …]

``text``: parallel GRUs over invoices (CSV day files with InvoiceNo, StockCode, Description, Quantity, InvoiceDate,
CustomerID) with vectors of the descriptions; in each network the hidden units together are those of the plain one.
``users``: hierarchical GRUs over listening sessions (columns session_id, user_id, song_id, ts) of users who have
several sessions. ``bloom``: the same sessions, of all users, with a tenth of the items' rows. ``cells``: these with
LSTM cells, and with embeddings that begin with prod2vec's vectors of the sessions that train. All networks get the same
sessions, epochs and negatives; sessions that start before the 0.9 quantile train, the others test. ``--sessions`` takes
the first ones only. One line of JSON comes last: ``ours`` is the best of the other networks, ``peer`` the plain one.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from _measure import last_line, say
from gru_quality import SETTINGS, read_sessions, run

from sparkrec.log import setup_logging
from sparkrec.models.gru.settings import GruConfig
from sparkrec.models.prod2vec import train as prod2vec
from sparkrec.models.prod2vec.sequences import snapshot_rows
from sparkrec.models.prod2vec.settings import Prod2VecConfig
from sparkrec.prepare.text_vectors import text_vectors
from sparkrec.ranks.checkpoint import WEIGHTS
from sparkrec.ranks.launch import run_ranks
from sparkrec.ranks.snapshot import write_snapshot
from sparkrec.settings.config import load_config
from sparkrec.settings.sections import SparkConfig, TextConfig, TrainConfig
from sparkrec.spark.session import build_session

RANKS = TrainConfig(threads_per_rank=1)  # small products: a second thread does not help


def main() -> None:
    """Trains each network once and compares."""
    args = arguments()
    setup_logging()
    plain = load_config(None, ["gru.loss=bpr-max", *SETTINGS["bpr-max"], *args.settings]).gru
    spark_conf = {"spark.driver.memory": "2g", "spark.sql.shuffle.partitions": "2"}
    spark = build_session(SparkConfig(master="local[2]", conf=spark_conf))
    vectors = None
    if args.what == "text":
        sessions, n_items, vectors = read_invoices(spark, args.data)
    else:
        sessions, n_items = read_sessions(spark, args.data)
    sessions = chosen(sessions, args.sessions, several=args.what == "users")
    found, begun = {}, tempfile.TemporaryDirectory()
    if args.what == "cells":
        train_prod2vec(spark, sessions.where("not test"), n_items, plain, begun.name)
    for name, config in networks(args.what, plain, n_items).items():
        with tempfile.TemporaryDirectory() as folder:
            pretrained = None if config.pretrained == "none" else f"{begun.name}/model"
            judged = run(spark, sessions, n_items, config, RANKS, folder, vectors, pretrained)
            found[name] = judged | {"weights_mb": round(Path(folder, "model", WEIGHTS).stat().st_size / 1e6, 2)}
        say(name, found[name])
    peer = found.pop("plain")
    best = max(found.values(), key=lambda f: f["recall@20"])
    ours, theirs = best["recall@20"], peer["recall@20"]
    last_line(bench=f"gru_variants {args.what}", ours=ours, peer=theirs, ratio=ours / theirs, unit="recall@20", runs=1,
              plain=peer, networks=found)  # fmt: skip
    spark.stop()
    begun.cleanup()


def train_prod2vec(spark: Any, sessions: Any, n_items: int, plain: GruConfig, folder: str) -> None:
    """prod2vec over sessions, as wide as the GRU, into ``folder/model``."""
    config = Prod2VecConfig(dim=plain.layers[-1], sequences="sessions", seed=plain.seed)
    plan = snapshot_rows(sessions)
    write_snapshot(plan.rows, f"{folder}/snapshot", group=plan.group, order=plan.order, n_files=RANKS.snapshot_files,
                   inputs={"sessions": 0})  # fmt: skip
    args = (f"{folder}/snapshot", f"{folder}/model", config, RANKS, n_items, {})
    run_ranks(spark, prod2vec.train, args, RANKS)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=["text", "users", "bloom", "cells"], required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--sessions", type=int, default=0, help="the first so many; 0: all")
    parser.add_argument("settings", nargs="*")
    return parser.parse_args()


def networks(what: str, plain: GruConfig, n_items: int) -> dict[str, GruConfig]:
    """The networks to compare, each with the plain one's budget."""
    found = {"plain": plain}
    if what == "text":
        half = [width // 2 for width in plain.layers]
        for method in ("tfidf", "word2vec"):
            parallel = replace(plain, network="parallel", layers=half, feature_layers=half, features=[f"text_{method}"])
            schedules = ("simultaneous", "residual") if method == "tfidf" else ("simultaneous",)
            found |= {f"{method}, {schedule}": replace(parallel, schedule=schedule) for schedule in schedules}
    elif what == "users":
        found |= {name: replace(plain, network=name) for name in ("hierarchical-init", "hierarchical-all")}
    elif what == "cells":
        begun = replace(plain, pretrained="prod2vec")
        separate = replace(plain, embedding="separate", embedding_dim=plain.layers[-1])
        found |= {
            "lstm": replace(plain, cell="lstm"),
            "from prod2vec": begun,
            "separate": separate,
            "separate, from prod2vec": replace(separate, pretrained="prod2vec"),
            "separate, prod2vec frozen": replace(separate, pretrained="prod2vec", pretrained_tuned=False),
        }
    else:
        found |= {
            f"{k} of {n_items // 10} rows": replace(plain, bloom_rows=n_items // 10, bloom_hashes=k) for k in (2, 4)
        }
    return found


def read_invoices(spark: Any, folder: str) -> tuple[Any, int, Any]:
    """Invoices as sessions, as ``read_sessions`` gives them; and vectors of the descriptions, by both methods."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    lines = spark.read.csv(sorted(str(p) for p in Path(folder).glob("*.csv*")), header=True)
    bought = lines.where("double(Quantity) > 0 and double(UnitPrice) > 0 and not startswith(InvoiceNo, 'C')")
    title = F.max("Description").alias("title")
    items = bought.groupBy(F.col("StockCode").alias("id")).agg(title).localCheckpoint()
    index = items.select("id", (F.row_number().over(Window.orderBy("id")) - 1).alias("idx"))
    numbered = bought.withColumn("place", F.monotonically_increasing_id()).join(index, bought.StockCode == index.id)
    events = F.sort_array(F.collect_list(F.struct("place", "idx")))
    start = F.min(F.try_to_timestamp("InvoiceDate")).alias("start_ts")
    user = F.min(F.col("CustomerID").try_cast("double")).cast("int").alias("user_idx")
    baskets = numbered.groupBy(F.col("InvoiceNo").alias("session_id")).agg(events.alias("events"), start, user)
    items_of = F.array_distinct("events.idx").alias("items")
    sessions = baskets.select("session_id", "user_idx", "start_ts", items_of).localCheckpoint()
    tfidf, word2vec = (text_vectors(items, index, ["title"], TextConfig(method=m)) for m in ("tfidf", "word2vec"))
    return sessions, items.count(), tfidf.unionByName(word2vec).localCheckpoint()


def chosen(sessions: Any, limit: int, several: bool) -> Any:
    """Sessions of two events and more, the first so many, of users with several; with ``test`` bool."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    kept = sessions.drop("test").where(F.size("items") > 1)
    kept = kept.orderBy("start_ts", "session_id").limit(limit) if limit else kept
    if several:
        kept = kept.withColumn("n", F.count("*").over(Window.partitionBy("user_idx"))).where("n > 1").drop("n")
    cut = kept.select(F.percentile(F.unix_seconds("start_ts"), F.lit(0.9))).head()[0]
    return kept.withColumn("test", F.unix_seconds("start_ts") > cut).localCheckpoint()


if __name__ == "__main__":
    main()
