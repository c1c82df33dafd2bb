"""Training prod2vec and Meta-prod2vec on a snapshot: epochs over the pairs, checkpoints, the finished model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from sparkrec.errors import InvariantError, NothingToTrain, UserError
from sparkrec.log import log_event, progress
from sparkrec.models.prod2vec.feed import (
    chunks_of_steps,
    nothing_to_learn,
    pairs_of_steps,
    plan_pairs,
    read_walks,
)
from sparkrec.models.prod2vec.pairs import Walk, keep_probability
from sparkrec.models.prod2vec.settings import MetaProd2VecConfig, Prod2VecConfig
from sparkrec.models.prod2vec.side import Side, side_pairs
from sparkrec.models.prod2vec.skipgram import Tables, learning_rate, new_tables, served_vectors
from sparkrec.models.prod2vec.step import (
    Group,
    Pairs,
    draw_negatives,
    take_step,
    touched_by_all,
)
from sparkrec.models.two_tower.batches import Plan
from sparkrec.ranks import checkpoint
from sparkrec.ranks.comm import Comm
from sparkrec.ranks.epochs import History, run_epochs
from sparkrec.ranks.feed import item_counts
from sparkrec.ranks.launch import pick_device
from sparkrec.ranks.snapshot import Manifest, read_manifest
from sparkrec.settings.config import config_hash
from sparkrec.settings.sections import TrainConfig


@dataclass(frozen=True)
class Trainer:
    """What the steps need besides the tables."""

    config: Prod2VecConfig
    keep: np.ndarray  # float64 [n_items], share of the events that the sub-sampling leaves
    groups: tuple[Group, ...]  # of targets: items, then the values of each side feature
    side: Side | None

    @classmethod
    def create(cls, config: Prod2VecConfig, counts: torch.Tensor, side: Side | None) -> Trainer:
        """Builds the samplers from the items' events int64 [n_items]."""
        groups = [Group.of(0, counts, config.ns_exponent)]
        groups += [Group.of(first, n, config.ns_exponent) for first, n in (side.counts(counts) if side else [])]
        if side and len(side.codes) != len(counts):
            raise InvariantError(f"side information of {len(side.codes)} items, the catalogue has {len(counts)}")
        return cls(config, keep_probability(counts.numpy(), config.subsample), tuple(groups), side)

    def pairs(self, item: np.ndarray, context: np.ndarray) -> Pairs:
        """The pairs of a step, with those of the side information."""
        if self.side is None:
            return Pairs(item, context)
        weight = self.config.side_weight if isinstance(self.config, MetaProd2VecConfig) else 1.0
        return side_pairs(self.side, item, context, weight)


def train(
    comm: Comm,
    snapshot_path: str,
    model_path: str,
    config: Prod2VecConfig,
    train_config: TrainConfig,
    n_items: int,
    meta: dict[str, Any],
    side: Side | None = None,
) -> list[dict[str, Any]]:
    """Trains on a snapshot and writes the model; goes on from the last checkpoint of the same run.

    Args:
        comm: The ranks.
        snapshot_path: A snapshot of ``sequences.snapshot_rows``.
        model_path: The model's folder, reached by rank 0 at least.
        config: The model's settings.
        train_config: The ranks' settings.
        n_items: Size of the catalogue; items are 0 … n_items − 1.
        meta: JSON-able; kept in ``model.json``.
        side: The items' side information, with a ``MetaProd2VecConfig``: Meta-prod2vec.

    Returns:
        For each epoch: epoch, loss (for each pair of items), pairs, events, steps, rows_seen, seconds,
        events_per_second.

    Raises:
        InvariantError: The rows read are not the snapshot's, or an item is outside of the catalogue.
        UserError: There is no pair to train on, the loss is no longer finite; no usable snapshot or device.
    """
    manifest = read_manifest(snapshot_path)
    device = pick_device(comm, train_config)
    counts = item_counts(manifest, comm, n_items)
    if not manifest.rows:
        raise nothing_to_learn(manifest)
    trainer = Trainer.create(config, counts, side)
    parts = [asdict(f) for f in manifest.files]
    key = config_hash(config, manifest.inputs, n_items, parts, side.described if side else None)
    tables = new_tables(side.n_rows if side else n_items, config.dim, config.seed)
    history = checkpoint.resume(comm, model_path, key, tables._asdict())
    tables = Tables(*(t.to(device) for t in tables))

    def save_all(done: History) -> None:
        described: dict[str, Any] = {"config": asdict(config), "inputs": manifest.inputs, "history": done}
        described |= {"rows": manifest.rows, "sequences": manifest.groups, "meta": meta}
        save(model_path, Tables(*(t.cpu() for t in tables)), counts, side, described)

    return run_epochs(
        comm, model_path, key, history, config.epochs,
        run_epoch=lambda epoch: _run_epoch(trainer, tables, manifest, comm, epoch), tensors=tables._asdict,
        save=save_all, name="prod2vec",
    )  # fmt: skip


def save(path: str, tables: Tables, counts: torch.Tensor, side: Side | None, described: dict[str, Any]) -> None:
    """Writes the model: vectors and contexts float32 [n_items, dim] (0 for an item without one), counts int64."""
    n_items = len(counts)
    rows = [torch.from_numpy(r) for r in side.rows] if side else []
    vectors, found = served_vectors(tables, counts, rows)
    weights = {"vectors": vectors, "contexts": tables.contexts[:n_items], "counts": counts}
    if side is not None:
        weights["side_vectors"] = tables.vectors[n_items:]
        described = described | {"side": side.described}
    log_event("prod2vec_items", **found)
    if not found["learnt"]:
        fix = "more epochs, or a smaller batch_size: the first step alone moves no item"
        raise NothingToTrain("no item has learnt a vector", where=path, fix=fix)
    model = "prod2vec" if side is None else "meta_prod2vec"
    checkpoint.save_model(path, weights, {"model": model, "n_items": n_items, "items": found, **described})


def _run_epoch(trainer: Trainer, tables: Tables, manifest: Manifest, comm: Comm, epoch: int) -> dict[str, Any]:
    began = time.perf_counter()
    config = trainer.config
    walks = read_walks(manifest, comm, trainer.keep, config.window, config.seed, epoch)
    plan = plan_pairs(walks, manifest, comm, config.batch_size)
    draws = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    total = torch.zeros((), dtype=torch.float64)
    seen = 0
    bar = iter(progress(range(plan.steps), total=plan.steps, name=f"prod2vec epoch {epoch}", rank=comm.rank))
    for steps in chunks_of_steps(plan):
        for loss, n_pairs in _run_chunk(trainer, tables, walks, plan, steps, epoch, draws, comm):
            total, seen = total + loss, seen + n_pairs
            next(bar)
        if not torch.isfinite(total):
            raise UserError("training diverged", where=f"prod2vec, epoch {epoch}", fix="lower its learning_rate")
    next(bar, None)
    pairs = sum(plan.examples)
    if (seen := int(comm.allreduce_sum(torch.tensor([seen]))[0])) != pairs:
        raise InvariantError(f"{manifest.path}: {seen} pairs seen, expected {pairs}")
    seconds = time.perf_counter() - began
    return {
        "epoch": epoch,
        "loss": float(total) / pairs,
        "pairs": pairs,
        "events": manifest.rows,
        "steps": plan.steps,
        "rows_seen": manifest.rows,
        "seconds": round(seconds, 3),
        "events_per_second": round(manifest.rows / seconds, 1),
    }


def _run_chunk(
    trainer: Trainer, tables: Tables, walks: dict[int, Walk], plan: Plan, steps: range, epoch: int,
    draws: torch.Generator, comm: Comm,
) -> Iterator[tuple[torch.Tensor, int]]:  # fmt: skip
    """Takes some steps; gives each one's loss, of all ranks, and number of pairs, of this one."""
    config = trainer.config
    parts = list(pairs_of_steps(walks, plan, steps))
    chunk = [trainer.pairs(*part) for part in parts]
    everyone = touched_by_all(chunk, comm) if comm.size > 1 else [None] * len(chunk)
    negatives = draw_negatives(trainer.groups, config.negatives, len(steps), draws)
    for k, step in enumerate(steps):
        done = (epoch - 1 + step / plan.steps) / config.epochs
        rate = learning_rate(config.learning_rate, config.min_learning_rate, done)
        loss = take_step(tables, chunk[k], negatives[k], everyone[k], rate, comm)
        yield loss.cpu(), len(parts[k][0])
