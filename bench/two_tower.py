"""Training speed of the two towers beside a plain PyTorch loop on the same model: examples a second.

    python bench/two_tower.py [key=value …] [--events 300000] [--items 10000] [--users 20000] [--runs 3] [--ranks 1 2]

The plain loop is what one would write for a single process: all examples as tensors in memory, made beforehand and
not timed; the tables in one sparse ``nn.Embedding``; one column of scores for each draw, accidental hits masked; log Q
correction; ``torch.optim.Adagrad``. Our side has the reading of the snapshot through Petastorm, the making of the
histories, the ranks' messages and the checkpoint of each epoch in its time. Every side has ``--threads`` threads for
each rank; the sides take turns. Ratio: examples a second of one of our ranks by those of the plain loop, at the number
of ranks where it is smallest.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import torch
from _measure import last_line, machine, say
from _training import spark_session, write_parts
from torch import Tensor, nn

from sparkrec.models.two_tower.batches import DAY_S, Sequences, lane, lane_batch, sequences
from sparkrec.models.two_tower.network import N_NUMERIC, PAD, TowerShape, new_table
from sparkrec.models.two_tower.step import prepare
from sparkrec.models.two_tower.train import TowerTask, tower_shape, train
from sparkrec.ranks.comm import Comm, SingleProcess
from sparkrec.ranks.launch import run_ranks
from sparkrec.settings.config import Config, load_config

AS_OF = 100 * DAY_S


def main() -> None:
    """Measures every number of ranks."""
    args = arguments()
    settings = ["train.device=cpu", f"train.threads_per_rank={args.threads}", *args.settings]
    config = load_config(None, settings)
    torch.set_num_threads(args.threads)
    importlib.import_module("petastorm")  # takes seconds, which the first run would be charged with
    spark = spark_session(max(args.ranks)) if max(args.ranks) > 1 else None
    say(machine())
    with tempfile.TemporaryDirectory() as folder:
        files = made_up(args, config.train.snapshot_files)
        write_snapshot(files, f"{folder}/snapshot")
        shape = tower_shape(config.two_tower, args.users, args.items, (), ())
        found: dict[str, list[float]] = {"plain": [], **{f"{ranks} ranks": [] for ranks in args.ranks}}
        for number in range(args.runs):
            found["plain"].append(plain_rate(files, shape, config))
            for ranks in args.ranks:
                found[f"{ranks} ranks"].append(our_rate(spark, folder, config, args, ranks))
            say(f"run {number + 1}: " + ", ".join(f"{name} {rates[-1]:.0f}/s" for name, rates in found.items()))
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    per_rank = {ranks: medians[f"{ranks} ranks"] / ranks for ranks in args.ranks}
    worst = min(per_rank.values())
    last_line(bench="two_tower", ours=round(worst, 1), peer=round(medians["plain"], 1),
              ratio=round(worst / medians["plain"], 3), unit="examples/s of a rank", runs=found)  # fmt: skip


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    return parser.parse_intermixed_args()


def made_up(args: argparse.Namespace, n_files: int) -> dict[int, Sequences]:
    """Events of users and items whose popularity falls as a power of their rank, whole users to a file."""
    rng = np.random.default_rng(1)
    popularity = np.arange(1, args.items + 1) ** -0.8
    item = rng.permutation(args.items)[rng.choice(args.items, args.events, p=popularity / popularity.sum())]
    user = rng.integers(0, args.users, args.events)
    ts = rng.integers(0, AS_OF, args.events)
    files = {}
    for number in range(n_files):
        mine = user % n_files == number
        files[number] = sequences(user[mine], item[mine], ts[mine], np.ones(mine.sum()), np.zeros((mine.sum(), 0)))
    return files


def write_snapshot(files: dict[int, Sequences], path: str) -> None:
    """The events in the layout of ``ranks.snapshot``."""
    parts = {
        number: {"user_idx": seq.user, "item_idx": seq.item, "ts_s": seq.ts, "weight": seq.weight}
        for number, seq in files.items()
    }
    write_parts(parts, path, "user_idx", len(files))


def our_rate(spark: Any, folder: str, config: Config, args: argparse.Namespace, ranks: int) -> float:
    """Examples a second of all ranks together, from the snapshot to the model."""
    settings = dict(config.train.__dict__, ranks=ranks)
    with tempfile.TemporaryDirectory(dir=folder) as model:
        task = TowerTask(
            snapshot_path=f"{folder}/snapshot", model_path=model, config=config.two_tower,
            train=type(config.train)(**settings), n_users=args.users, n_items=args.items, user_features=(),
            item_features=(), item_codes=np.zeros((args.items, 0), dtype=np.int32), as_of=AS_OF, repeats=True, meta={},
        )  # fmt: skip
        seconds = max(run_ranks(spark, timed_train, (task,), task.train))
    return config.two_tower.epochs * args.events / seconds


def timed_train(comm: Comm, task: TowerTask) -> float:
    """Seconds of a rank's training, without the imports."""
    importlib.import_module("petastorm")
    comm.barrier()
    began = time.perf_counter()
    train(comm, task)
    return time.perf_counter() - began


class Plain(nn.Module):
    """The same towers over one embedding of all rows; the last row is the padding."""

    def __init__(self, shape: TowerShape, seed: int) -> None:
        super().__init__()
        self.shape = shape
        self.rows = nn.Embedding(shape.n_rows + 1, shape.dim, padding_idx=shape.n_rows, sparse=True)
        with torch.no_grad():
            self.rows.weight[:-1] = new_table(shape, torch.Generator().manual_seed(seed))
        self.bias = nn.Parameter(torch.randn(shape.dim) / shape.dim**0.5)
        self.history = nn.Linear(shape.dim, shape.dim, bias=False)
        nn.init.eye_(self.history.weight)
        self.decay = nn.Parameter(torch.zeros(()))
        self.numeric = nn.Linear(N_NUMERIC, shape.dim, bias=False)
        self.momentum = nn.Linear(shape.dim, shape.n_momentum)

    def users(self, user: Tensor, history: Tensor, days: Tensor, numeric: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors and coefficients of the momentum."""
        weight = (1.0 + days).pow(-self.decay) * (history != self.shape.n_rows)
        recent = torch.einsum("nh,nhd->nd", weight, self.rows(history)) / weight.sum(1, keepdim=True).clamp(min=1e-6)
        z = self.rows(user) + self.bias + self.history(recent) + self.numeric(numeric)
        return nn.functional.normalize(z, dim=1), self.momentum(z)

    def items(self, rows: Tensor) -> Tensor:
        """Vectors of items."""
        return nn.functional.normalize(self.rows(rows), dim=1)


def plain_rate(files: dict[int, Sequences], shape: TowerShape, config: Config) -> float:
    """Examples a second of the plain loop."""
    settings = config.two_tower
    no_codes = np.zeros((shape.n_items, 0), dtype=np.int32)
    data = prepare(SingleProcess(), files, len(files), shape, settings, item_codes=no_codes, as_of=AS_OF, repeats=True)
    user, history, ages, numeric, item, day = in_memory(data, shape, settings.horizon_days)
    model = Plain(shape, settings.seed)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=settings.learning_rate)
    first_item, pool = shape.segments["item"][0], data.trained_items
    phi = data.clock.momentum(torch.arange(data.clock.n_days + 1), torch.arange(shape.n_items))
    share = (data.share * settings.batch_size + settings.n_sample / len(pool)).clamp(min=1e-9)
    began, seen = time.perf_counter(), 0
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(user)).split(settings.batch_size):
            z, a = model.users(user[rows], history[rows], ages[rows], numeric[rows])
            drawn = torch.cat([item[rows], pool[torch.randint(len(pool), (settings.n_sample,))]])
            scores = z @ model.items(drawn + first_item).T / settings.temperature
            scores = scores + momentum_scores(phi, day[rows], drawn, a) - share[drawn].log()
            own = torch.arange(len(rows))
            hit = item[rows][:, None] == drawn[None, :]
            hit[own, own] = False
            loss = nn.functional.cross_entropy(scores.masked_fill(hit, float("-inf")), own)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(rows)
    return seen / (time.perf_counter() - began)


def momentum_scores(phi: Tensor, day: Tensor, candidates: Tensor, a: Tensor) -> Tensor:
    """<a_u, phi(i, t)> for each row's time [n, candidates].

    Args:
        phi: float32 [days, momentum, items]: items last, as each time's are gathered.
        day: int64 [n].
        candidates: int64 [candidates].
        a: float32 [n, momentum].
    """
    order = day.argsort(stable=True)
    times, count = day[order].unique_consecutive(return_counts=True)
    groups = a[order].split(count.tolist())
    parts = [group @ phi[time].index_select(1, candidates) for time, group in zip(times.tolist(), groups, strict=True)]
    return torch.cat(parts)[order.argsort()] if parts else a.new_zeros(0, len(candidates))


def in_memory(data: Any, shape: TowerShape, horizon_days: float) -> tuple[Tensor, ...]:
    """user, history, history_days, numeric, item, day of all examples."""
    parts = []
    for number, rows in data.rows.items():
        source = lane(data.files[number], rows, (1, number), horizon_days)
        parts.append(lane_batch(source, slice(0, len(rows)), data.clock, shape.history_length))
    users = [part.users for part in parts]
    history = shape.id_rows("item", torch.from_numpy(np.concatenate([u.history for u in users])))
    return (
        shape.id_rows("user", torch.from_numpy(np.concatenate([u.user for u in users]))),
        torch.where(history == PAD, shape.n_rows, history),
        torch.from_numpy(np.concatenate([u.history_days for u in users])),
        torch.from_numpy(np.concatenate([u.numeric for u in users])),
        torch.from_numpy(np.concatenate([part.item for part in parts])),
        torch.from_numpy(np.concatenate([part.day for part in parts])),
    )


if __name__ == "__main__":
    main()
