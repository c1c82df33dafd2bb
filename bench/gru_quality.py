"""Quality of the session GRU on listening sessions: Recall@20 and MRR@20 over the full catalogue.

    python bench/gru_quality.py --data FILE [--loss bpr-max|cross-entropy] [--seeds 1] [--hybrid] [--peer DIR] [k=v]

The file has columns session_id, user_id, song_id and ts (unix seconds). Sessions that start before the 0.9 quantile of
session starts train, the others test. With ``--hybrid`` session neighbours and the hybrid of both are judged, too,
and ``ours`` is the hybrid's. With ``--peer`` (a checkout of the official code) the official is trained and judged on
the same split with the same settings and seeds, on one thread. One line of JSON comes last; without ``--peer`` its
peer figures are those given by --peer-recall/-mrr.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from typing import Any

from _gru_peer import load_peer, official_quality
from _measure import say

from sparkrec.evaluation.sessions import session_metrics
from sparkrec.log import log_event, setup_logging
from sparkrec.models.gru import train as gru
from sparkrec.models.gru.settings import GruConfig
from sparkrec.models.gru.states import left_out, next_item_ranks, trained_items
from sparkrec.models.session_hybrid.blend import SessionHybrid
from sparkrec.models.session_neighbours import nearest as session_neighbours
from sparkrec.models.session_neighbours.nearest import trained_sessions
from sparkrec.ranks.item_vectors import write_item_vectors
from sparkrec.ranks.launch import run_ranks
from sparkrec.ranks.snapshot import write_snapshot
from sparkrec.settings.config import Config, load_config
from sparkrec.settings.sections import SparkConfig, TrainConfig
from sparkrec.spark.session import build_session

# The settings of the published comparison; ``key=value`` arguments come on top.
SETTINGS = {
    "bpr-max": ["gru.lanes=80", "gru.dropout_embedding=0.3", "gru.dropout_hidden=0.05", "gru.learning_rate=0.05",
                "gru.momentum=0.4", "gru.n_sample=2048", "gru.sample_alpha=0.4", "gru.bpreg=1.95", "gru.elu=0.5"],
    "cross-entropy": ["gru.lanes=48", "gru.dropout_embedding=0.0", "gru.dropout_hidden=0.2", "gru.learning_rate=0.07",
                      "gru.momentum=0.0", "gru.n_sample=2048", "gru.sample_alpha=0.2", "gru.logq=1.0"],
}  # fmt: skip


def main() -> None:
    """Trains once for each seed, and prints the means."""
    args = arguments()
    setup_logging()
    config = load_config(None, [f"gru.loss={args.loss}", *SETTINGS[args.loss], *args.settings])
    spark_conf = {"spark.driver.memory": "2g", "spark.sql.shuffle.partitions": "2"}
    spark = build_session(SparkConfig(master="local[2]", conf=spark_conf))
    sessions, n_items = read_sessions(spark, args.data)
    runs, peer = [], load_peer(args.peer) if args.peer else None
    split = [collected(sessions.where(part)) for part in ("not test", "test")] if peer else []
    for seed in range(1, args.seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(run(spark, sessions, n_items, replace(config.gru, seed=seed), config.train, folder))
            if args.hybrid:
                runs[-1] |= with_neighbours(sessions, n_items, config, f"{folder}/model")
            if peer:
                found = official_quality(peer, *split, config.gru, seed)
                runs[-1] |= {f"peer {name}": value for name, value in found.items()}
        log_event("quality_run", seed=seed, **runs[-1])
    mean = {key: statistics.mean(r[key] for r in runs) for key in runs[0]}
    ours = mean["hybrid recall@20" if args.hybrid else "recall@20"]
    mean = {"peer recall@20": args.peer_recall, "peer mrr@20": args.peer_mrr} | mean
    theirs = mean["peer recall@20"]
    print(json.dumps({"bench": f"gru_quality {args.loss}", "ours": ours, "peer": theirs, "ratio": ours / theirs,
                      "unit": "recall@20", "runs": len(runs), **mean}))  # fmt: skip
    spark.stop()


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--loss", choices=list(SETTINGS), default="bpr-max")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--hybrid", action="store_true")
    parser.add_argument("--peer", help="a checkout of GRU4Rec_PyTorch_Official, to be measured on the same split")
    parser.add_argument("--peer-recall", type=float, default=0.467)
    parser.add_argument("--peer-mrr", type=float, default=0.304)
    parser.add_argument("settings", nargs="*")
    return parser.parse_args()


def read_sessions(spark: Any, path: str) -> tuple[Any, int]:
    """Sessions in the columns of the sessions table, with ``test`` bool; and the number of items."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    events = spark.read.parquet(path)
    numbers = events.select("song_id").distinct()
    numbers = numbers.select("song_id", (F.row_number().over(Window.orderBy("song_id")) - 1).alias("item_idx"))
    collected = F.sort_array(F.collect_list(F.struct("ts", "place", "item_idx")))
    placed = events.withColumn("place", F.monotonically_increasing_id()).join(numbers, "song_id", how="inner")
    user = F.min("user_id").cast("int").alias("user_idx")
    sessions = placed.groupBy("session_id").agg(collected.alias("events"), F.min("ts").alias("start"), user).select(
        F.col("session_id").cast("string"),
        "user_idx",
        F.timestamp_seconds("start").alias("start_ts"),
        F.col("events.item_idx").alias("items"),
        "start",
    ).localCheckpoint()  # fmt: skip
    starts = sorted(r["start"] for r in sessions.select("start").collect())
    cut = starts[int(0.9 * (len(starts) - 1))]
    return sessions.withColumn("test", F.col("start") > cut).drop("start"), numbers.count()


def collected(sessions: Any) -> list[list[int]]:
    """The items of each session, sessions in order of their start."""
    rows = sessions.select("start_ts", "session_id", "items").collect()
    return [list(r["items"]) for r in sorted(rows, key=lambda r: (r["start_ts"], r["session_id"]))]


def run(
    spark: Any,
    sessions: Any,
    n_items: int,
    config: GruConfig,
    ranks: TrainConfig,
    folder: str,
    vectors: Any = None,
    pretrained: str | None = None,
) -> dict[str, float]:
    """Trains on the first part of the sessions and judges on the rest, which go on from the first; ``folder/model``."""
    train, test = sessions.where("not test"), sessions.where("test")
    snapshot, model = f"{folder}/snapshot", f"{folder}/model"
    plan = gru.snapshot_rows(train, config)
    write_snapshot(plan.rows, snapshot, group=plan.group, order=plan.order, n_files=ranks.snapshot_files,
                   inputs={"sessions": 0}, n_slots=config.lanes)  # fmt: skip
    if config.features:
        write_item_vectors(vectors, snapshot, config.features, "gru.features")
    history = run_ranks(spark, gru.train, (snapshot, model, config, ranks, n_items, {}, None, pretrained), ranks)[0]
    say(left_out(test, trained_items(model)))
    judged = session_metrics(next_item_ranks(test, model, history=train), [20])
    return {
        **{f"{value.metric}@{value.k}": value.value for value in judged},
        "events_per_second": statistics.median(h["events_per_second"] for h in history),
        "train_s": round(sum(h["seconds"] for h in history), 1),
    }


def with_neighbours(sessions: Any, n_items: int, config: Config, model: str) -> dict[str, float]:
    """Judges session neighbours and the hybrid beside the GRU in the folder ``model``."""
    train, test = sessions.where("not test"), sessions.where("test")
    trained, settings = trained_sessions(train, n_items), config.session_neighbours
    blend = SessionHybrid.build(trained, settings, config.session_hybrid)
    ranks = {
        "neighbours": session_neighbours.next_item_ranks(test, trained, settings, own_items=settings.own_items),
        "hybrid": next_item_ranks(test, model, history=train, blend=blend),
    }
    return {f"{name} {v.metric}@{v.k}": v.value for name, rows in ranks.items() for v in session_metrics(rows, [20])}


if __name__ == "__main__":
    main()
