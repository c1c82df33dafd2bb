"""Training speed of the session GRU beside GRU4Rec's own code: events a second of one epoch.

    python bench/gru_speed.py [--peer DIR] [--events 100000 …] [--items 10000 …] [--runs 3] [--ranks 1] [k=v …]

DIR is a checkout of GRU4Rec_PyTorch_Official. BPR-max at the published settings (layers 100, 80 lanes, 2,048
negatives, constrained embedding) on made-up sessions whose items' popularity falls as a power of their rank. The two
sides take turns; each has ``--threads`` threads (one is the peer's best on few cores). The peer's time is that of its
epoch alone, as it says itself; ours also has the reading of the snapshot through Petastorm. With ``--ranks`` our side
runs on as many Horovod workers, with ``--threads`` each.

The last line's figures are the medians at the size with the smallest ratio; ``sizes`` has them all. Without ``--peer``
our side runs alone, and each size is held against the fastest one: the cost of an event by events and items.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from _gru_peer import load_peer, peer_model
from _measure import last_line, machine, say
from _training import spark_session, write_parts
from gru_quality import SETTINGS as QUALITY_SETTINGS

from sparkrec.models.gru import train as gru
from sparkrec.ranks.launch import run_ranks
from sparkrec.settings.config import Config, load_config
from sparkrec.settings.sections import TrainConfig

SETTINGS = ["gru.loss=bpr-max", *QUALITY_SETTINGS["bpr-max"], "gru.epochs=1", "train.device=cpu"]


def main() -> None:
    """Measures every size."""
    args = arguments()
    threads = f"train.threads_per_rank={args.threads}"
    config = load_config(None, [*SETTINGS, f"train.ranks={args.ranks}", threads, *args.settings])
    peer = load_peer(args.peer) if args.peer else None
    torch.set_num_threads(args.threads)
    importlib.import_module("petastorm")  # takes seconds, which the first epoch would be charged with
    spark = spark_session(args.ranks) if args.ranks > 1 else None
    say(machine())
    sizes = [measure(args, peer, config, spark, n, m) for n in args.events for m in args.items]
    fastest = max(size["ours"] for size in sizes)
    for size in sizes:
        size.setdefault("peer", fastest)
        size["ratio"] = round(size["ours"] / size["peer"], 3)
    worst = min(sizes, key=lambda size: size["ratio"])
    last_line(bench="gru_speed", ours=worst["ours"], peer=worst["peer"], ratio=worst["ratio"], unit="events/s",
              runs=args.runs, ranks=args.ranks, threads=args.threads, sizes=sizes)  # fmt: skip


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer")
    parser.add_argument("--events", type=int, nargs="+", default=[100_000])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("settings", nargs="*")
    return parser.parse_args()


def measure(args: argparse.Namespace, peer: Any, config: Config, spark: Any, n_events: int, n_items: int) -> dict:
    """The medians at one size."""
    events = made_up(n_events, n_items)
    pairs = len(events) - events["SessionId"].nunique()
    with tempfile.TemporaryDirectory() as folder:
        write_snapshot(events, f"{folder}/snapshot", config)
        sides: dict[str, Callable[[], float]] = {
            "peer": lambda: pairs / their_seconds(peer, events, config),
            "ours": lambda: pairs / our_seconds(spark, folder, config, n_items),
        }
        if not peer:
            del sides["peer"]
        found: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(args.runs):
            for name, side in sides.items():
                found[name].append(side())
                say(f"{n_events} events, {n_items} items, run {number + 1}: {name} {found[name][-1]:.0f} events/s")
    medians = {name: round(statistics.median(values), 1) for name, values in found.items()}
    return {"events": n_events, "items": n_items, **medians}


def made_up(n_events: int, n_items: int) -> pd.DataFrame:
    """Events of sessions of 2 and more (mean about 6), one after another, in the columns that the peer reads."""
    rng = np.random.default_rng(1)
    lengths = 1 + rng.geometric(0.2, n_events // 5)
    lengths = lengths[: np.searchsorted(lengths.cumsum(), n_events) + 1]
    popularity = np.arange(1, n_items + 1) ** -0.8
    items = rng.choice(n_items, lengths.sum(), p=popularity / popularity.sum())
    session = np.repeat(np.arange(len(lengths)), lengths)
    return pd.DataFrame(
        {"SessionId": session, "ItemId": rng.permutation(n_items)[items], "Time": np.arange(len(items))}
    )


def write_snapshot(events: pd.DataFrame, path: str, config: Config) -> None:
    """The events in the layout of ``ranks.snapshot``, whose Spark job is no part of this."""
    n_files = config.train.snapshot_files
    number = events["SessionId"].to_numpy() % config.gru.lanes % n_files  # so that each lane gets its share
    session, item = events["SessionId"].to_numpy(), events["ItemId"].to_numpy().astype("int32")
    parts = {f: {"session": session[number == f], "item": item[number == f]} for f in range(n_files)}
    write_parts(parts, path, "session", config.gru.lanes)


def our_seconds(spark: Any, folder: str, config: Config, n_items: int) -> float:
    """Seconds of one epoch."""
    with tempfile.TemporaryDirectory(dir=folder) as model:
        train: TrainConfig = config.train
        history = run_ranks(spark, gru.train, (f"{folder}/snapshot", model, config.gru, train, n_items, {}), train)[0]
    return float(history[0]["seconds"])


def their_seconds(peer: Any, events: pd.DataFrame, config: Config) -> float:
    """Seconds of one epoch, as the peer prints them."""
    model = peer_model(peer, config.gru)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        model.fit(events)
    found = re.search(r"\(([0-9.]+)s\)", said.getvalue())
    assert found is not None, said.getvalue()
    return float(found[1])


if __name__ == "__main__":
    main()
