"""RMSE and MAE of predicted ratings on real logs, beside the mean, regularised biases and Surprise.

    python bench/ratings.py --logs DIR --network mlp --network text --seeds 3
    python bench/ratings.py --logs DIR --surprise PYTHON    # of an environment with scikit-surprise, numpy below 2
    python bench/ratings.py --logs DIR --als                # explicit ALS over biases, by MLlib, as a night has it

DIR holds movie_ratings/ and instrument_reviews/. Splits: random (NumPy's RandomState(0).permutation(n), the first fifth
is the test) and time (from the 0.8 quantile of the timestamps on). All test pairs, unknown users and items included,
predictions cut to the scale. Further arguments are settings: ratings.epochs=8.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from _measure import machine, say
from _training import spark_session
from pyspark.sql import DataFrame

from sparkrec.models.als.settings import AlsConfig
from sparkrec.models.prod2vec.settings import Prod2VecConfig
from sparkrec.models.ratings import train as ranks
from sparkrec.models.ratings.biases import Ratings
from sparkrec.models.ratings.reviews import Reviews
from sparkrec.models.ratings.serve import Served
from sparkrec.models.ratings.settings import RatingsConfig
from sparkrec.models.two_tower.network import Feature
from sparkrec.ranks.comm import Comm, SingleProcess
from sparkrec.settings.config import Config, config_dict, load_config
from sparkrec.settings.sections import TrainConfig

N_FILES = 8
TABLED = {"movie_ratings": (3.0, 2.0), "instrument_reviews": (8.0, 8.0)}  # λ of users and items, found by a grid


class Log(NamedTuple):
    """A log of n ratings."""

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    ts: np.ndarray
    codes: np.ndarray  # int32 [n_items, w]
    feature: tuple[Feature, ...]
    text: list[str]


def movie_ratings(folder: Path) -> Log:
    """Ratings with the films' genres."""
    rows = [line.split("::") for line in (folder / "ratings.dat").read_text("utf-8").split("\n") if line]
    users, items, ratings, times = zip(*rows, strict=True)
    names, item = np.unique(items, return_inverse=True)
    lines = [line.split("::") for line in (folder / "movies.dat").read_text("utf-8").split("\n")]
    genres = {line[0]: line[2].split("|")[:4] for line in lines if len(line) > 2 and line[2]}
    number = {genre: n for n, genre in enumerate(sorted({g for some in genres.values() for g in some}), 1)}
    codes = np.zeros((len(names), 4), dtype=np.int32)
    for row, name in enumerate(names):
        for place, genre in enumerate(genres.get(str(name), [])):
            codes[row, place] = number[genre]
    user = np.unique(users, return_inverse=True)[1]
    feature = (Feature("genres", len(number), 4),)
    return Log(user, item, np.array(ratings, float), np.array(times, np.int64), codes, feature, [])


def instrument_reviews(folder: Path) -> Log:
    """Reviews with their texts."""
    (file,) = folder.glob("*.json.gz")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    user, item = (np.unique([row[k] for row in rows], return_inverse=True)[1] for k in ("reviewerID", "asin"))
    rating, ts = (np.array([row[k] for row in rows]) for k in ("overall", "unixReviewTime"))
    texts = [f"{row.get('summary', '')}\n{row.get('reviewText', '')}" for row in rows]
    return Log(user, item, rating.astype(float), ts, np.zeros((item.max() + 1, 0), np.int32), (), texts)


def split(log: Log, how: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of training and of test."""
    n = len(log.user)
    if how == "random":
        order = np.random.RandomState(0).permutation(n)
        return order[-(-n // 5) :], order[: -(-n // 5)]
    later = log.ts >= np.quantile(log.ts, 0.8)
    return np.flatnonzero(~later), np.flatnonzero(later)


def errors(predicted: np.ndarray, log: Log, train: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """RMSE and MAE of all, and RMSE of known and cold pairs."""
    error = np.clip(predicted, log.rating[train].min(), log.rating[train].max()) - log.rating[test]
    known = np.isin(log.user[test], log.user[train]) & np.isin(log.item[test], log.item[train])
    parts = {"rmse": error, "known": error[known], "cold": error[~known]}
    return {"mae": np.abs(error).mean()} | {k: np.sqrt((e**2).mean()) if len(e) else np.nan for k, e in parts.items()}


def regularised_biases(log: Log, train: np.ndarray, test: np.ndarray, shrunk: tuple[float, float]) -> np.ndarray:
    """The baseline, by itself: ten sweeps."""
    user, item, above = log.user[train], log.item[train], log.rating[train] - log.rating[train].mean()
    n_user, n_item = (np.bincount(x, minlength=y.max() + 1) for x, y in ((user, log.user), (item, log.item)))
    b_user, b_item = np.zeros(len(n_user)), np.zeros(len(n_item))
    for _ in range(10):
        b_item = np.bincount(item, above - b_user[user], len(n_item)) / (shrunk[1] + n_item)
        b_user = np.bincount(user, above - b_item[item], len(n_user)) / (shrunk[0] + n_user)
    found: np.ndarray = log.rating[train].mean() + b_user[log.user[test]] + b_item[log.item[test]]
    return found


def reviews_of(log: Log, train: np.ndarray, config: RatingsConfig) -> tuple[Reviews, int]:
    """The words of the training reviews, as a night numbers them."""
    words = [re.findall(r"\w+", log.text[row].lower())[: config.words] for row in train]
    within = Counter(word for some in words for word in set(some))
    frequent = sorted((-n, word) for word, n in within.items() if n >= config.min_df)[: config.vocabulary]
    number = {word: n for n, (_, word) in enumerate(frequent, 1)}
    found = np.zeros((len(train), config.words), np.int32)
    for row, some in enumerate(words):
        found[row, : len(some)] = [number.get(word, 0) for word in some]
    user, item = log.user[train], log.item[train]
    return Reviews.of(user, item, found, log.user.max() + 1, log.item.max() + 1), len(number)


def network(log: Log, train: np.ndarray, test: np.ndarray, config: RatingsConfig, vectors: torch.Tensor) -> np.ndarray:
    """Our predictions, by one rank, without Spark: the same steps on the same arrays."""
    comm, n_users, n_items = cast(Comm, SingleProcess()), int(log.user.max()) + 1, int(log.item.max()) + 1
    reviews, n_words = reviews_of(log, train, config) if config.network == "text" else (None, 0)
    with tempfile.TemporaryDirectory() as folder:
        task = ranks.RatingTask(
            "", folder, config, TrainConfig(device="cpu"), n_users, n_items, (), log.feature,
            np.zeros((n_users, 0), np.int32), log.codes, {}, vocabulary=n_words,
        )  # fmt: skip
        files = {}
        for number in range(N_FILES):
            rows = train[log.user[train] % N_FILES == number]
            files[number] = Ratings(log.user[rows], log.item[rows], log.rating[rows])
        sizes = [len(one.user) for one in files.values()]
        data = ranks.prepare(comm, task, files, sizes, vectors.shape[1], reviews)
        state = ranks.State.new(data, vectors)
        history = [ranks.run_epoch(comm, state, data, epoch) for epoch in range(1, config.passes + 1)]
        ranks.save(task, state, data, history)
        served, pairs = Served(folder), (log.user[test], log.item[test])
        predicted = served.predict(*pairs)
        if served.uncertain:
            sure(served.deviation(*pairs), data.scale * config.sigma, predicted - log.rating[test])
        return predicted


def sure(deviation: np.ndarray, noise: float, error: np.ndarray) -> None:
    """Says how the deviations of predictions lie beside their errors."""
    within = np.abs(error) <= 1.96 * np.sqrt(deviation**2 + noise**2)
    order = np.array_split(np.argsort(deviation, kind="stable"), 4)
    quarters = [(round(float(deviation[q].mean()), 3), round(float((error[q] ** 2).mean() ** 0.5), 3)) for q in order]
    say(f"within 95 %: {within.mean():.3f}; quarters by deviation, and their RMSE: {quarters}")


def sequence_vectors(log: Log, train: np.ndarray, seed: int) -> torch.Tensor:
    """Unit vectors of the items: prod2vec over the users' sequences in order of time."""
    from sparkrec.models.prod2vec.pairs import Sequences, walk
    from sparkrec.models.prod2vec.skipgram import learning_rate, new_tables, served_vectors
    from sparkrec.models.prod2vec.step import draw_negatives, take_step
    from sparkrec.models.prod2vec.train import Trainer

    comm = cast(Comm, SingleProcess())
    config = Prod2VecConfig(dim=32, lists="similar", ns_exponent=0.75, epochs=5, window=5, seed=seed)
    rows = train[np.lexsort((log.ts[train], log.user[train]))]
    counts = torch.from_numpy(np.bincount(log.item[rows], minlength=log.item.max() + 1))
    trainer, tables = Trainer.create(config, counts, None), new_tables(len(counts), config.dim, seed)
    draws = torch.Generator().manual_seed(seed)
    for epoch in range(config.epochs):
        sequences = Sequences.of(log.user[rows], log.item[rows], len(np.unique(log.user[rows])))
        steps = walk(sequences, trainer.keep, config.window, (seed, epoch, 0))
        for low in range(0, steps.n_pairs, 2048):
            item, context = (x.astype(np.int64) for x in steps.pairs(slice(low, min(low + 2048, steps.n_pairs))))
            negatives = draw_negatives(trainer.groups, config.negatives, 1, draws)[0]
            rate = learning_rate(config.learning_rate, 1e-4, (epoch + low / steps.n_pairs) / config.epochs)
            take_step(tables, trainer.pairs(item, context), negatives, None, rate, comm)
    return torch.nn.functional.normalize(served_vectors(tables, counts)[0])


def night_biases(log: Log, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """What the mean and the biases of a night expect, by Spark."""
    from sparkrec.prepare.rating_biases import EXPECTED, rating_biases

    matrix, asked = spark_pairs(log, train, test)
    found = rating_biases(matrix).of(asked).toPandas().sort_values("row")
    predicted: np.ndarray = found[EXPECTED].to_numpy(dtype=float)
    return predicted


def spark_pairs(log: Log, train: np.ndarray, test: np.ndarray) -> tuple[DataFrame, DataFrame]:
    """The training pairs with their ratings, and the test pairs with the number of the row."""
    spark = spark_session(2)
    columns = {"user_idx": log.user, "item_idx": log.item}
    pairs = pd.DataFrame({name: column.astype("int32") for name, column in columns.items()})
    matrix = spark.createDataFrame(pairs.iloc[train].assign(rating=log.rating[train].astype("float32"))).persist()
    return matrix, spark.createDataFrame(pairs.iloc[test].assign(row=np.arange(len(test), dtype="int32")))


def explicit_als(log: Log, train: np.ndarray, test: np.ndarray, config: AlsConfig) -> np.ndarray:
    """The predictions of explicit ALS over biases, by the night's own code."""
    from sparkrec.models.als import rated
    from sparkrec.models.als.train import fit_als, save_als
    from sparkrec.prepare.rating_biases import rating_biases

    matrix, asked = spark_pairs(log, train, test)
    spark = matrix.sparkSession
    with tempfile.TemporaryDirectory() as folder:
        biases = rating_biases(matrix)
        left = rated.left_by(matrix, biases, config.residual_reg)
        rated.save_biases(biases, left, folder)
        say(f"deviation of what the biases leave {left.deviation:.3f}, lambda {left.reg:.3f}")
        residuals = rated.residuals(matrix, rated.load_biases(spark, folder), left.deviation)
        model = fit_als(residuals, dataclasses.replace(config, reg=left.reg), f"{folder}/checkpoints")
        save_als(model, folder, {"settings": config_dict(config)})
        found = rated.predictions(spark, folder, True)(asked).toPandas()
        matrix.unpersist()
    predicted: np.ndarray = found.sort_values("row")["predicted"].to_numpy(dtype=float)
    return predicted


PEER = """
import sys, numpy as np, pandas as pd, surprise
data, method, how, seeds = np.load(sys.argv[1]), sys.argv[3], sys.argv[4], int(sys.argv[5])
grids = {
    "SVD": (surprise.SVD, {}, [
        {"n_factors": f, "reg_all": r, "n_epochs": e} for f in (10, 50) for r in (0.1, 0.2) for e in (20, 50)]),
    "SVD++": (surprise.SVDpp, {}, [
        {"n_factors": f, "reg_all": r, "n_epochs": e} for f in (10, 20) for r in (0.05, 0.2) for e in (20, 40)]),
    "PMF": (surprise.SVD, {"biased": False}, [
        {"n_factors": f, "reg_all": r, "n_epochs": e} for f in (10, 50) for r in (0.05, 0.2) for e in (20, 50)]),
    "NMF": (surprise.NMF, {}, [
        {"n_factors": f, "biased": b, "reg_pu": r, "reg_qi": r, "n_epochs": 50}
        for f in (5, 15) for b in (False, True) for r in (0.06, 0.2)]),
}
make, always, grid = grids[method]
frame = pd.DataFrame({"user": data["user"], "item": data["item"], "rating": data["rating"]})
centre = frame["rating"].mean() if method == "PMF" else 0.0

def predicted(rows, settings, seed, users, items):
    rows = rows.assign(rating=rows["rating"] - centre)
    reader = surprise.Reader(rating_scale=(data["rating"].min() - centre, data["rating"].max() - centre))
    model = make(**always, **settings, random_state=seed)
    model.fit(surprise.Dataset.load_from_df(rows, reader).build_full_trainset())
    return np.array([model.predict(u, i).est for u, i in zip(users, items)]) + centre

if how == "random":
    order = np.random.RandomState(1).permutation(len(frame))
    inner, held = frame.iloc[order[len(frame) // 5:]], frame.iloc[order[:len(frame) // 5]]
else:
    late = data["ts"] >= np.quantile(data["ts"], 0.8)
    inner, held = frame[~late], frame[late]
losses = []
for settings in grid:
    found = predicted(inner, settings, 0, held["user"], held["item"])
    losses.append(float(np.mean((found - held["rating"]) ** 2)) if np.isfinite(found).all() else np.inf)
best = grid[int(np.argmin(losses))]
print(method, how, best, "validation RMSE", round(min(losses) ** 0.5, 4), file=sys.stderr)
np.save(sys.argv[2], np.array([predicted(frame, best, s, data["test_user"], data["test_item"]) for s in range(seeds)]))
"""


def surprise(python: str, method: str, how: str, log: Log, train: np.ndarray, test: np.ndarray, seeds: int) -> Any:
    """Predictions of one of Surprise's methods, float [seeds, test].

    Its settings are those of a grid that do best on a fifth of the training pairs, taken as the test part is.
    """
    with tempfile.TemporaryDirectory() as folder:
        own = {"user": log.user[train], "item": log.item[train], "rating": log.rating[train], "ts": log.ts[train]}
        np.savez(f"{folder}/data.npz", test_user=log.user[test], test_item=log.item[test], **own)
        arguments = [f"{folder}/data.npz", f"{folder}/found.npy", method, how, str(seeds)]
        subprocess.run([python, "-c", PEER, *arguments], check=True)
        return np.load(f"{folder}/found.npy")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=Path, required=True)
    parser.add_argument("--log", action="append", choices=[*TABLED])
    parser.add_argument("--split", action="append", choices=["random", "time"])
    parser.add_argument("--network", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--surprise", default="", help="a Python with scikit-surprise")
    parser.add_argument("--als", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("settings", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = load_config(None, ["als.feedback=explicit", *options.settings])
    print(machine(), file=sys.stderr)
    for name in options.log or [*TABLED]:
        log = {"movie_ratings": movie_ratings, "instrument_reviews": instrument_reviews}[name](options.logs / name)
        for how in options.split or ["random", "time"]:
            report(name, how, log, config, options)


def report(name: str, how: str, log: Log, config: Config, options: argparse.Namespace) -> None:
    """A line for each method on a split of a log."""
    train, test = split(log, how)

    def line(method: str, found: list[np.ndarray]) -> None:
        each = [errors(one, log, train, test) for one in found]
        means = {k: round(float(np.mean([e[k] for e in each])), 4) for k in each[0]}
        spread = round(float(np.std([e["rmse"] for e in each])), 4)
        print(json.dumps({"log": name, "split": how, "method": method, **means, "rmse_std": spread}), flush=True)

    line("mean", [np.full(len(test), log.rating[train].mean())])
    line("biases by grid", [regularised_biases(log, train, test, TABLED[name])])
    if options.surprise:
        for method in ("SVD", "SVD++", "PMF", "NMF"):
            line(f"surprise {method}", list(surprise(options.surprise, method, how, log, train, test, options.seeds)))
    if options.als:
        line("biases as a night has them", [night_biases(log, train, test)])
        line(f"explicit ALS, rank {config.als.rank}", [explicit_als(log, train, test, config.als)])
    for kind in options.network:
        if kind == "text" and not log.text:
            continue
        found = []
        for seed in range(1, options.seeds + 1):
            vectors = (
                sequence_vectors(log, train, seed) if kind == "word2vec_mlp" else torch.zeros(log.item.max() + 1, 0)
            )
            mine = dataclasses.replace(config.ratings, network=kind, seed=seed)
            found.append(network(log, train, test, mine, vectors))
        line(kind, found)


if __name__ == "__main__":
    main()
