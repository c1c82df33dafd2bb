"""Factors learnt by ranking against ``implicit``'s BPR: Recall@20, NDCG@20 and pairs a second, on the same split.

    python bench/implicit_mf.py --data DIR --implicit PYTHON [--split time --seeds 3 --loss bpr --loss warp] [SETTINGS]

DIR is movie_ratings/: ratings of 6 and more are what users took. Split time: the first 80 % of time, and what users
known by then took afterwards of the items known by then; random: 80:20. PYTHON is of an environment with implicit
(``python -m venv``, ``pip install implicit``). Full ranking without the items that a user had; recall = hits /
min(|truth|, 20). Both at one thread; ours by one rank, without Spark: the same steps on the same arrays. Neither sees
the time (no prior). Further arguments are settings: implicit_mf.dim=32.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from _measure import machine, say

from sparkrec.models.implicit_mf import train as ranks
from sparkrec.models.implicit_mf.settings import ImplicitMfConfig
from sparkrec.ranks.comm import Comm, SingleProcess
from sparkrec.settings.config import load_config
from sparkrec.settings.sections import TrainConfig

K, N_FILES = 20, 8


class Split(NamedTuple):
    """Pairs of training, and of the truth: of known users and items, not in training."""

    user: np.ndarray
    item: np.ndarray
    test_user: np.ndarray
    test_item: np.ndarray
    n_users: int
    n_items: int


def read(folder: Path, how: str, share: float = 0.8) -> Split:
    """The log's pairs, numbered by what training knows."""
    rows = [line.split("::") for line in (folder / "ratings.dat").read_text("utf-8").split("\n") if line]
    names, films, ratings, times = (np.array(column) for column in zip(*rows, strict=True))
    liked = ratings.astype(float) >= 6
    user, item, ts = names[liked], films[liked], times[liked].astype(np.int64)
    if how == "time":
        early = ts < np.quantile(ts, share)
    else:
        early = np.random.RandomState(0).permutation(len(user)) < share * len(user)
    users, items = np.unique(user[early]), np.unique(item[early])
    rows_of = [
        np.searchsorted(users, user).clip(max=len(users) - 1),
        np.searchsorted(items, item).clip(max=len(items) - 1),
    ]
    known = (users[rows_of[0]] == user) & (items[rows_of[1]] == item)
    key = rows_of[0] * len(items) + rows_of[1]
    train = np.unique(key[early])
    test = np.setdiff1d(np.unique(key[~early & known]), train)
    n = len(items)
    return Split(train // n, train % n, test // n, test % n, len(users), n)


def judged(split: Split, users: np.ndarray, items: np.ndarray, bias: np.ndarray) -> dict[str, float]:
    """Recall@20 and NDCG@20 of inner products over all items that the user did not take."""
    asked, first = np.unique(split.test_user, return_index=True)
    ends = np.append(first[1:], len(split.test_user))
    begins = np.searchsorted(split.user, np.arange(split.n_users + 1))
    discount = 1 / np.log2(np.arange(K) + 2)
    recall, ndcg = [], []
    for user, low, high in zip(asked, first, ends, strict=True):
        scores = items @ users[user] + bias
        scores[split.item[begins[user] : begins[user + 1]]] = -np.inf
        best = np.argpartition(-scores, K)[:K]
        hits = np.isin(best[np.argsort(-scores[best], kind="stable")], split.test_item[low:high])
        most = min(K, high - low)
        recall.append(hits.sum() / most)
        ndcg.append((hits * discount).sum() / discount[:most].sum())
    return {"recall": float(np.mean(recall)), "ndcg": float(np.mean(ndcg)), "users": len(asked)}


def ours(split: Split, config: ImplicitMfConfig) -> dict[str, float]:
    """A training of ours, and what it reached."""
    comm = cast(Comm, SingleProcess())
    task = ranks.MfTask("", "", config, TrainConfig(device="cpu"), split.n_users, split.n_items, {})
    files = {}
    for number in range(N_FILES):
        rows = split.user % N_FILES == number
        files[number] = ranks.Pairs(split.user[rows], split.item[rows], np.ones(int(rows.sum()), np.float32))
    data = ranks.prepare(comm, task, files, [len(one.user) for one in files.values()])
    state = ranks.State.new(split.n_users, split.n_items, config)
    began = time.monotonic()
    for epoch in range(1, config.epochs + 1):
        ranks.run_epoch(comm, state, data, epoch)
    seconds, table = time.monotonic() - began, state.table.numpy()
    users, items = table[: split.n_users, :-1], table[split.n_users :]
    rate = len(split.user) * config.epochs / seconds
    return judged(split, users, items[:, :-1], items[:, -1]) | {"pairs_per_s": rate}


PEER = """
import sys, time, json, numpy as np
from scipy.sparse import csr_matrix
from implicit.bpr import BayesianPersonalizedRanking
data, settings = np.load(sys.argv[1]), json.loads(sys.argv[3])
matrix = csr_matrix((np.ones(len(data["user"]), np.float32), (data["user"], data["item"])), shape=data["shape"])
model = BayesianPersonalizedRanking(num_threads=1, use_gpu=False, **settings)
began = time.monotonic()
model.fit(matrix, show_progress=False)
seconds = time.monotonic() - began
np.savez(sys.argv[2], users=model.user_factors, items=model.item_factors, seconds=seconds)
"""


def peer(python: str, split: Split, settings: dict[str, Any]) -> dict[str, float]:
    """A training of implicit's, and what it reached; its factors hold the bias."""
    with tempfile.TemporaryDirectory() as folder:
        shape = np.array([split.n_users, split.n_items])
        np.savez(f"{folder}/data.npz", user=split.user, item=split.item, shape=shape)
        command = [python, "-c", PEER, f"{folder}/data.npz", f"{folder}/found.npz", json.dumps(settings)]
        subprocess.run(command, check=True, env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"})
        found = np.load(f"{folder}/found.npz")
        rate = len(split.user) * settings["iterations"] / float(found["seconds"])
        return judged(split, found["users"], found["items"], np.zeros(split.n_items)) | {"pairs_per_s": rate}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", choices=["time", "random"], default="time")
    parser.add_argument("--implicit", default="", help="a Python with implicit")
    parser.add_argument("--peer", type=json.loads, action="append", default=[], help="its settings, as JSON")
    parser.add_argument("--loss", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("settings", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(None, options.settings).implicit_mf
    split = read(options.data, options.split)
    say(f"{split.n_users} x {split.n_items}, {len(split.user)} pairs, {len(split.test_user)} to foresee; {machine()}")

    def line(method: str, found: list[dict[str, float]]) -> None:
        means = {k: round(float(np.mean([one[k] for one in found])), 4) for k in found[0]}
        spread = round(float(np.std([one["recall"] for one in found])), 4)
        print(json.dumps({"split": options.split, "method": method, **means, "recall_std": spread}), flush=True)

    popular = np.bincount(split.item, minlength=split.n_items).astype(float)
    line("popularity", [judged(split, np.zeros((split.n_users, 1)), np.zeros((split.n_items, 1)), popular)])
    seeds = range(1, options.seeds + 1)
    if options.implicit:
        for settings in options.peer or [
            {"factors": 100, "learning_rate": 0.01, "regularization": 0.01, "iterations": 100}
        ]:
            found = [peer(options.implicit, split, {**settings, "random_state": seed}) for seed in seeds]
            line(f"implicit BPR {json.dumps(settings)}", found)
    for loss in options.loss:
        found = [ours(split, dataclasses.replace(config, loss=loss, seed=seed)) for seed in seeds]
        line(loss, found)


if __name__ == "__main__":
    sys.exit(main())
