"""Functions that test_launch runs on real Horovod workers, and the program that starts them in local[3]."""

import dataclasses
import json
import os
import signal
import sys
import time

import torch

from sparkrec.errors import InvariantError
from sparkrec.log import setup_logging
from sparkrec.models.gru import train as gru
from sparkrec.models.gru.choice import by_user
from sparkrec.models.gru.settings import GruConfig
from sparkrec.ranks.comm import gather_rows
from sparkrec.ranks.item_vectors import write_item_vectors
from sparkrec.ranks.launch import run_ranks
from sparkrec.ranks.snapshot import write_snapshot
from sparkrec.settings.sections import SparkConfig, TrainConfig
from tests.quick import QUICK

CONFIG = GruConfig(
    layers=[6, 5], embedding_dim=4, lanes=7, n_sample=9, epochs=2, dropout_embedding=0.3, dropout_hidden=0.2
)
# Each loss, embedding and network; some with more lanes than sessions, or a drawn order of sessions.
CONFIGS = {
    "bpr-max": CONFIG,
    "cross-entropy": dataclasses.replace(CONFIG, loss="cross-entropy", embedding="separate"),
    "bpr": dataclasses.replace(CONFIG, loss="bpr", embedding="none"),
    "top1": dataclasses.replace(CONFIG, loss="top1", lanes=50),
    "top1-max": dataclasses.replace(CONFIG, loss="top1-max", embedding="none", session_order="random"),
    "parallel": dataclasses.replace(
        CONFIG, network="parallel", features=["text"], feature_layers=[3], schedule="alternating"
    ),
    "hierarchical": dataclasses.replace(CONFIG, network="hierarchical-all", user_units=4),
    "bloom": dataclasses.replace(CONFIG, bloom_rows=8, bloom_hashes=3),
}


def collectives(comm, scale):
    """Each operation once; the gradient of Σ over ranks of Σ_j (rank + 1) (scale x_j)² with x gathered."""
    mine = torch.full((2,), float(comm.rank + 1), requires_grad=True)
    ((scale * gather_rows(mine, comm)) ** 2 * (comm.rank + 1)).sum().backward()
    comm.barrier()
    return {
        "rank": [comm.rank, comm.size, comm.local_rank, comm.local_size],
        "sum": comm.allreduce_sum(torch.tensor([1, comm.rank])).tolist(),
        "gathered": comm.allgather(torch.tensor([comm.rank])).tolist(),
        "broadcast": comm.broadcast(torch.tensor([comm.rank]), root=comm.size - 1).tolist(),
        "gradient": mine.grad.tolist(),
        "threads": torch.get_num_threads(),
        "shared": comm.memory is not None,
        "unequal": unequal(comm),
    }


def unequal(comm):
    """What the ranks are told that gather tensors of other shapes than the others."""
    try:
        comm.allgather(torch.zeros(1 + comm.rank**2))  # 1, 2, 5 rows: no rank has the mean's number, so all see it
    except InvariantError as error:
        return str(error)
    return ""


def fails_on_rank_1(comm):
    if comm.rank == 1:
        raise InvariantError("rank 1 lost rows")
    wait_for_the_others(comm)


def dies_on_rank_1(comm):
    if comm.rank == 1:
        os.kill(os.getpid(), 9)
    wait_for_the_others(comm)


def wait_for_the_others(comm):
    for _ in range(6000):
        comm.allreduce_sum(torch.zeros(1))
        time.sleep(0.01)


def everything(comm, folder, config):
    """The collectives, and name → history; the models in ``<folder>/<name><ranks>``. A launch takes seconds."""
    found, histories = collectives(comm, 3.0), {}
    for name, settings in CONFIGS.items():
        snapshot = f"{folder}/by-{'user' if by_user(settings) else 'session'}"
        histories[name] = gru.train(comm, snapshot, f"{folder}/{name}{comm.size}", settings, config, 23, {})
    return found, histories


def outcome(spark, fn, ranks):
    began = time.monotonic()
    try:
        run_ranks(spark, fn, (), TrainConfig(ranks=ranks, device="cpu"))
    except Exception as error:
        return {"kind": type(error).__name__, "text": str(error), "seconds": time.monotonic() - began}
    return {"kind": "none"}


def main(folder):
    from sparkrec.spark.session import build_session

    setup_logging()
    conf = {**QUICK, "spark.driver.memory": "1g", "spark.driver.host": "127.0.0.1"}
    conf["spark.driver.bindAddress"] = "127.0.0.1"
    spark = build_session(SparkConfig(master="local[3]", conf=conf))
    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(n) for n in signals]
    found = {"errors": {f.__name__: outcome(spark, f, 2) for f in (fails_on_rank_1, dies_on_rank_1)}}
    found["signals"] = [signal.getsignal(n) is handler for n, handler in zip(signals, before, strict=True)]
    found["slots"] = outcome(spark, collectives, 4)
    sessions = spark.range(40).selectExpr(
        "cast(id as string) session_id",
        "nullif(cast(id % 9 as int), 0) user_idx",
        "timestamp_seconds(1000 * id) start_ts",
        "transform(sequence(0, cast(id % 6 as int)), i -> cast(pmod(id * 7 + i * i, 23) as int)) items",
    )
    vectors = spark.range(3, 23).selectExpr("cast(id as int) item_idx", "'text' name", "array(sin(id), cos(id)) vector")
    for name in ("bpr-max", "hierarchical"):
        plan = gru.snapshot_rows(sessions, CONFIGS[name])
        layout = {"group": plan.group, "order": plan.order, "n_files": 6, "n_slots": 7}
        write_snapshot(plan.rows, f"{folder}/by-{plan.group}", inputs={"s": 1}, **layout)
    write_item_vectors(vectors, f"{folder}/by-session", ["text"], "gru.features")
    for ranks in (1, 2, 3):
        config = TrainConfig(ranks=ranks, device="cpu", shared_memory=ranks < 3)  # three go through Horovod
        everyone = run_ranks(spark, everything, (folder, config), config)
        found[f"collectives{ranks}"], found[f"train{ranks}"] = zip(*everyone, strict=True)
    spark.stop()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
