"""prod2vec beside gensim's Word2Vec: the next product in a basket, and words a second.

    python bench/prod2vec.py --log DIR --format invoices --run-date 2011-12-09 [prod2vec.key=value …]
    python bench/prod2vec.py … --speed [--runs 3] [--workers 1 2]
    python bench/prod2vec.py … --meta [--log-items FILE]

The log goes through the night's own stages ingest, index and prepare (no item is left out for its support); baskets
(or sessions, with prod2vec.sequences=sessions) are split by time: the last ``--holdout`` share of them is the test, or
with ``--validate`` the share before it, which is for choosing settings. Both sides learn skip-gram with the same
dimensions, window, negatives, exponent, sub-sampling and epochs; each has the learning rate of its own optimiser
(``--peer-rate``). A held-out basket's neighbours are predictions: the earlier item's 10 best, held against the later
one. Ours are those of the largest inner product with the context vectors (with prod2vec.lists=similar, of the largest
cosine); the peer, which has no such search, is measured by the cosine and, as "peer contexts", by that product as
well. HitRate@10 and NDCG@10 are means over all pairs and over ``--seeds`` seeds; items that were not trained on are
misses.

``--speed`` takes turns with the peer: one process with one thread, then two Horovod ranks beside two workers. Our time
has the reading of the snapshot in it. ``--meta`` compares Meta-prod2vec with our prod2vec, both at the settings of
Meta-prod2vec, on the pairs whose next product was seen fewer than 5 times in training.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from _measure import last_line, machine, run_measured, say, sparkrec_command
from _training import spark_session, write_parts

from sparkrec.models.prod2vec import train as prod2vec
from sparkrec.models.prod2vec.embeddings import ItemEmbeddings, stored_embeddings
from sparkrec.models.prod2vec.settings import Prod2VecConfig
from sparkrec.models.prod2vec.side import Side
from sparkrec.models.two_tower.network import Feature
from sparkrec.ranks.launch import run_ranks
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.settings.config import Config, load_config
from sparkrec.settings.sections import TrainConfig

K = 10
SELDOM = 5  # events
Sequences = list[np.ndarray]


def main() -> None:
    """Measures what was asked for."""
    args = arguments()
    config = load_config(None, ["train.device=cpu", *args.settings])
    importlib.import_module("petastorm")  # takes seconds, which the first epoch would be charged with
    torch.set_num_threads(1)
    say(machine())
    with tempfile.TemporaryDirectory() as folder:
        warehouse = prepared(args, folder)
        sequences, n_items = read_sequences(warehouse, config.prod2vec.sequences)
        train, test = split(sequences, args)
        say(f"{len(train)} sequences of {sum(map(len, train))} events train, {len(test)} test; {n_items} items")
        if args.speed:
            speed(args, config, train, n_items)
        elif args.meta:
            meta(args, config, train, test, read_side(warehouse, n_items))
        else:
            quality(args, config, train, test, n_items)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("log", "format", "run-date"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--log-items", help="the file of item attributes")
    parser.add_argument("--conf", default="conf/local.yaml")
    parser.add_argument("--warehouse", help="where the tables are, or are to be kept")
    parser.add_argument("--holdout", type=float, default=0.1)
    for name in ("validate", "speed", "meta"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--peer-rate", type=float, default=0.025)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    return parser.parse_intermixed_args()


def prepared(args: argparse.Namespace, folder: str) -> Path:
    """The warehouse with the night's tables, made where it is not there yet."""
    warehouse = Path(args.warehouse or f"{folder}/warehouse")
    if not (warehouse / "copurchase").exists():
        items = [f"logs.items_path={args.log_items}"] if args.log_items else []
        command = sparkrec_command(
            "nightly", "--conf", args.conf, "--run-date", args.run_date, "--only", "ingest,index,prepare",
            f"logs.path={args.log}", f"logs.format={args.format}", f"warehouse.path={warehouse}", *items,
            "prepare.support.min_item_events=1", "report.nightly=false",
        )  # fmt: skip
        if run_measured(command).code:
            raise SystemExit("the night's stages failed")
    return warehouse


def read_sequences(warehouse: Path, kind: str) -> tuple[Sequences, int]:
    """The items of each basket or session in order of time, and the size of the catalogue."""
    key, start = ("basket_id", "ts") if kind == "copurchase" else ("session_id", "start_ts")
    rows = pl.read_delta(str(warehouse / kind)).sort(start, key)
    found = [np.array(items, dtype=np.int64) for items in rows["items"].to_list() if len(items) > 1]
    return found, len(pl.read_delta(str(warehouse / "item_index")))


def split(sequences: Sequences, args: argparse.Namespace) -> tuple[Sequences, Sequences]:
    """Training and test, or training and validation."""
    n_test = round(len(sequences) * args.holdout)
    known = sequences[:-n_test] if args.validate else sequences
    return known[:-n_test], known[-n_test:]


def read_side(warehouse: Path, n_items: int) -> Side:
    """The items' features, one value each: the first."""
    rows = pl.read_delta(str(warehouse / "item_features")).sort("item_idx")
    names = [name for name in rows.columns if name != "item_idx"]
    codes = np.zeros((n_items, len(names)), dtype=np.int32)
    for column, name in enumerate(names):
        codes[rows["item_idx"].to_numpy(), column] = rows[name].list.first().to_numpy()
    return Side(tuple(Feature(name, int(codes[:, n].max()), 1) for n, name in enumerate(names)), codes)


def write_snapshot(train: Sequences, path: str, n_files: int) -> None:
    """The sequences in the layout of ``ranks.snapshot``."""
    parts = {}
    for number in range(n_files):
        mine = train[number::n_files]
        numbers = np.repeat(np.arange(number, len(train), n_files), [len(items) for items in mine])
        parts[number] = {"sequence": numbers, "item": np.concatenate(mine).astype(np.int32)}
    write_parts(parts, path, "sequence", n_files)


def ours(
    train: Sequences,
    config: Prod2VecConfig,
    ranks: TrainConfig,
    n_items: int,
    side: Side | None = None,
    spark: Any = None,
) -> tuple[ItemEmbeddings, float]:
    """The vectors, and seconds of all epochs, with the reading in them."""
    with tempfile.TemporaryDirectory() as folder:
        write_snapshot(train, f"{folder}/snapshot", ranks.snapshot_files)
        task = (f"{folder}/snapshot", f"{folder}/model", config, ranks, n_items, {}, side)
        history = run_ranks(spark, prod2vec.train, task, ranks)[0]
        return stored_embeddings(f"{folder}/model"), sum(h["seconds"] for h in history)


def peers(
    train: Sequences, config: Prod2VecConfig, rate: float, n_items: int, workers: int = 1
) -> tuple[ItemEmbeddings, float]:
    """The peer's vectors and contexts; the building of its vocabulary is no part of the seconds."""
    from gensim.models import Word2Vec

    words = [list(map(str, items)) for items in train]
    model = Word2Vec(
        sg=1, vector_size=config.dim, window=config.window, negative=config.negatives, ns_exponent=config.ns_exponent,
        sample=config.subsample, alpha=rate, min_alpha=config.min_learning_rate, min_count=1, workers=workers,
        seed=config.seed,
    )  # fmt: skip
    model.build_vocab(words)
    began = time.perf_counter()
    model.train(words, total_examples=model.corpus_count, epochs=config.epochs)
    seconds = time.perf_counter() - began
    items = [int(word) for word in model.wv.index_to_key]
    vectors, contexts = (np.zeros((n_items, config.dim), dtype=np.float32) for _ in range(2))
    vectors[items], contexts[items] = model.wv.vectors, model.syn1neg
    eligible = (vectors != 0).any(axis=1)
    return ItemEmbeddings(ItemMatrix(vectors, None, eligible), ItemMatrix(contexts, None, eligible)), seconds


def hits(found: ItemEmbeddings, test: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """For each pair of neighbours: the later item, and its rank among the earlier one's K nearest, 0 for a miss."""
    before, after = (np.concatenate([items[part] for items in test]) for part in (slice(None, -1), slice(1, None)))
    asking, among = found.vectors.vectors, found.contexts
    known = eligible = found.vectors.eligible
    if among is None:
        asking = asking / np.maximum(np.linalg.norm(asking, axis=1, keepdims=True), 1e-12)
        against = asking
    else:
        against, eligible = among.vectors, among.eligible
    assert known is not None
    assert eligible is not None
    ranks = np.zeros(len(before), dtype=np.int64)
    for query in np.unique(before[known[before]]):
        scores = np.where(eligible, against @ asking[query], -np.inf)
        scores[query] = -np.inf
        nearest = np.argsort(-scores, kind="stable")[:K]
        asked = np.flatnonzero(before == query)
        place = after[asked][:, None] == nearest[None, :]
        ranks[asked] = np.where(place.any(1), place.argmax(1) + 1, 0)
    return after, ranks


def metrics(ranks: np.ndarray) -> dict[str, float]:
    """HitRate@10 and NDCG@10."""
    gain = np.where(ranks > 0, 1 / np.log2(ranks + 1.0, where=ranks > 0, out=np.ones(len(ranks))), 0.0)
    return {"hit_rate": float((ranks > 0).mean()), "ndcg": float(gain.mean())}


def quality(args: argparse.Namespace, config: Config, train: Sequences, test: Sequences, n_items: int) -> None:
    """Both sides on all pairs, for each seed."""
    runs: dict[str, list[dict[str, float]]] = {}
    for seed in range(1, args.seeds + 1):
        settings = replace(config.prod2vec, seed=seed)
        found = {"ours": ours(train, settings, config.train, n_items)[0]}
        peer = peers(train, settings, args.peer_rate, n_items)[0]
        found["peer"] = peer._replace(contexts=None)
        if settings.lists == "bought_together":
            found["peer contexts"] = peer
        for name, model in found.items():
            runs.setdefault(name, []).append(metrics(hits(model, test)[1]))
            say(f"seed {seed} {name}: {runs[name][-1]}")
    mean = {name: {key: statistics.mean(r[key] for r in of) for key in of[0]} for name, of in runs.items()}
    mine, theirs = mean["ours"], mean["peer"]
    ratios = {key: mine[key] / theirs[key] for key in mine}
    last_line(bench="prod2vec", ours=mine["hit_rate"], peer=theirs["hit_rate"], ratio=ratios["hit_rate"],
              unit="HitRate@10", runs=args.seeds, means=mean, ndcg_ratio=ratios["ndcg"],
              settings=asdict(config.prod2vec))  # fmt: skip


def speed(args: argparse.Namespace, config: Config, train: Sequences, n_items: int) -> None:
    """Words a second at each number of workers."""
    words = config.prod2vec.epochs * sum(map(len, train))
    spark = spark_session(max(args.workers)) if max(args.workers) > 1 else None
    found: dict[str, list[float]] = {}
    for number in range(args.runs):
        for workers in args.workers:
            ranks = replace(config.train, ranks=workers, threads_per_rank=1)
            sides: dict[str, Callable[[], float]] = {
                f"peer {workers}": lambda n=workers: peers(train, config.prod2vec, args.peer_rate, n_items, n)[1],
                f"ours {workers}": lambda r=ranks: ours(train, config.prod2vec, r, n_items, None, spark)[1],
            }
            for name, side in sides.items():
                found.setdefault(name, []).append(words / side())
                say(f"run {number + 1}: {name} {found[name][-1]:.0f} words/s")
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    ratios = {n: medians[f"ours {n}"] / medians[f"peer {n}"] for n in args.workers}
    worst = min(args.workers, key=lambda n: ratios[n])
    last_line(bench="prod2vec speed", ours=round(medians[f"ours {worst}"]), peer=round(medians[f"peer {worst}"]),
              ratio=round(ratios[worst], 3), unit="words/s", runs=found, workers=worst)  # fmt: skip


def meta(args: argparse.Namespace, config: Config, train: Sequences, test: Sequences, side: Side) -> None:
    """Meta-prod2vec beside prod2vec on the pairs whose next product was seldom seen."""
    n_items = len(side.codes)
    seldom = np.bincount(np.concatenate(train), minlength=n_items) < SELDOM
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
    for seed in range(1, args.seeds + 1):
        settings = replace(config.meta_prod2vec, seed=seed)
        plain = Prod2VecConfig(**{name: getattr(settings, name) for name in asdict(config.prod2vec)})
        found = {"ours": ours(train, settings, config.train, n_items, side)[0]}
        found["peer"] = ours(train, plain, config.train, n_items)[0]
        for name, model in found.items():
            after, ranks = hits(model, test)
            whole = metrics(ranks)
            runs[name].append({**metrics(ranks[seldom[after]]), "all": whole["hit_rate"], "all_ndcg": whole["ndcg"]})
            say(f"seed {seed} {name}, {seldom[after].sum()} of {len(after)} pairs: {runs[name][-1]}")
    mean = {name: {key: statistics.mean(r[key] for r in of) for key in of[0]} for name, of in runs.items()}
    mine, theirs = mean["ours"], mean["peer"]
    ratio = mine["hit_rate"] / theirs["hit_rate"] if theirs["hit_rate"] else None
    last_line(bench="meta_prod2vec", ours=mine["hit_rate"], peer=theirs["hit_rate"], ratio=ratio,
              unit=f"HitRate@10 of products seen < {SELDOM} times", runs=args.seeds, means=mean)  # fmt: skip


if __name__ == "__main__":
    main()
