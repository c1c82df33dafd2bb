"""The feed beside the model: rows a second that Petastorm delivers as lanes, and events a second that the GRU consumes.

    python bench/feed.py [--events 300000] [--items 10000] [--epochs 10] [--threads 1] [key=value …]

The feed reads a snapshot of sessions through Petastorm and puts them on their lanes, as a rank does at the beginning
of each epoch; so often that growing memory would show. The model then trains one epoch of the same snapshot, BPR-max
at the published settings; the feed's share is taken off its time. Ratio: the feed's rate by the model's.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import tempfile
import time

import psutil
import torch
from _measure import last_line, machine, say
from gru_speed import SETTINGS, made_up, write_snapshot

from sparkrec.models.gru import train as gru
from sparkrec.models.gru.lanes import lane_table, lanes_of_files, walk_lanes
from sparkrec.ranks.comm import SingleProcess
from sparkrec.ranks.feed import check_total, read_files
from sparkrec.ranks.snapshot import read_manifest
from sparkrec.settings.config import Config, load_config


def main() -> None:
    """Measures both."""
    args = arguments()
    config = load_config(None, [*SETTINGS, f"train.threads_per_rank={args.threads}", *args.settings])
    torch.set_num_threads(args.threads)
    importlib.import_module("petastorm")  # takes seconds, which the first epoch would be charged with
    say(machine())
    with tempfile.TemporaryDirectory() as folder:
        write_snapshot(made_up(args.events, args.items), f"{folder}/snapshot", config)
        seconds, megabytes, rows = [], [], 0
        for epoch in range(args.epochs):
            began = time.perf_counter()
            rows = deliver(f"{folder}/snapshot", config)
            seconds.append(time.perf_counter() - began)
            megabytes.append(psutil.Process().memory_info().rss / 2**20)
            say(f"epoch {epoch + 1}: {rows / seconds[-1]:.0f} rows/s, {megabytes[-1]:.0f} MiB")
        once = statistics.median(seconds)
        train = (f"{folder}/snapshot", f"{folder}/model", config.gru, config.train, args.items, {})
        epoch_s = gru.train(SingleProcess(), *train)[0]
    consumed = epoch_s["events"] / max(epoch_s["seconds"] - once, 1e-9)
    last_line(bench="feed", ours=round(rows / once, 1), peer=round(consumed, 1), ratio=round(rows / once / consumed, 2),
              unit="rows/s; peer: events/s of the model", runs=[round(rows / s, 1) for s in seconds],
              mib_first=round(megabytes[0], 1), mib_last=round(megabytes[-1], 1))  # fmt: skip


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    return parser.parse_intermixed_args()


def deliver(path: str, config: Config) -> int:
    """One epoch's rows on their lanes, held against the manifest."""
    manifest, comm = read_manifest(path), SingleProcess()
    widths = lanes_of_files(config.gru.lanes, [f.rows for f in manifest.files])
    parts = read_files(manifest, 0, 1, ["session", "item"])
    check_total(manifest, sum(len(columns["item"]) for columns in parts.values()), comm)
    lanes = {f: walk_lanes(c["session"], c["item"], widths[f], None) for f, c in parts.items() if widths[f]}
    lane_table(lanes, widths, comm)
    return manifest.rows


if __name__ == "__main__":
    main()
