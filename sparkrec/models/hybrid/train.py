"""Training the network blender on a snapshot of candidates, beside which the users' vectors lie."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor

from sparkrec.errors import InvariantError, UserError
from sparkrec.log import log_event, progress
from sparkrec.models.hybrid.network import BlenderNetwork, BlenderShape, lengths_one, new_network
from sparkrec.models.hybrid.settings import HybridConfig
from sparkrec.models.two_tower.batches import Plan
from sparkrec.models.two_tower.step import adagrad_
from sparkrec.ranks import checkpoint
from sparkrec.ranks.comm import Comm
from sparkrec.ranks.feed import check_total, read_files
from sparkrec.ranks.launch import pick_device
from sparkrec.ranks.snapshot import Manifest, read_manifest
from sparkrec.settings.config import config_hash
from sparkrec.settings.sections import TrainConfig
from sparkrec.storage import files
from sparkrec.warehouse.tables import ITEM_IDX, NAME, USER_IDX, VECTOR

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

LABEL, USERS, NETWORK = "label", "users", "network."
ORDER, DRAWS = 1, 2  # what a seed is for


@dataclass(frozen=True)
class BlenderTask:
    """A training."""

    snapshot_path: str
    model_path: str
    config: HybridConfig
    train: TrainConfig
    features: tuple[str, ...]
    models: tuple[str, ...]  # whose vectors are joined
    widths: tuple[int, ...]  # of these
    items: np.ndarray  # float32 [n_items, sum of widths]
    rotations: dict[str, np.ndarray]  # of the part that is served, by model
    meta: dict[str, Any]  # JSON-able, into model.json


@dataclass(frozen=True)
class Candidates:
    """The candidates of a file."""

    user: np.ndarray  # int64 [n], places among the users' vectors
    item: np.ndarray  # int64 [n]
    features: np.ndarray  # float32 [n, features]
    label: np.ndarray  # float32 [n]: 1 where the user took the item


def snapshot_columns(rows: DataFrame, names: Sequence[str]) -> DataFrame:
    """Candidates with a label as numeric columns: ``user_idx``, ``item_idx``, ``label`` and the features ``f_<n>``."""
    from pyspark.sql import functions as F

    features = [F.col(name).cast("float").alias(f"f_{n}") for n, name in enumerate(names)]
    return rows.select(USER_IDX, ITEM_IDX, F.col(LABEL).cast("float").alias(LABEL), *features)


def write_users(users: DataFrame | None, snapshot_path: str) -> None:
    """Writes the users' vectors ``(user_idx, name, vector)`` into a snapshot's folder, through Spark's executors."""
    if users is not None:
        users.write.mode("overwrite").parquet(files.join(snapshot_path, USERS))


def read_users(snapshot_path: str, users: np.ndarray, models: Sequence[str], widths: Sequence[int]) -> Tensor:
    """The vectors of users int64 [n] (ascending) side by side, float32 [n, sum of widths]; zeros where one has none."""
    found = np.zeros((len(users), sum(widths)), np.float32)
    if models and len(users):
        filesystem, inside = files.resolve(files.join(snapshot_path, USERS))
        table = pq.read_table(inside, columns=[USER_IDX, NAME, VECTOR], filesystem=filesystem)
        for begin, model, width in zip(np.cumsum((0, *widths)), models, widths, strict=False):
            mine = table.filter(pc.equal(table[NAME], model))
            numbers = mine[USER_IDX].to_numpy()
            vectors = mine[VECTOR].combine_chunks().flatten().to_numpy().reshape(len(numbers), -1)
            place = np.searchsorted(users, numbers).clip(max=len(users) - 1)
            there = users[place] == numbers
            found[place[there], begin : begin + width] = vectors[there]
    return lengths_one(torch.from_numpy(found), widths)


def train(comm: Comm, task: BlenderTask) -> list[dict[str, Any]]:
    """Trains on a snapshot of candidates; every rank calls it. A finished epoch is kept as a checkpoint.

    Returns:
        For each epoch: epoch, loss (mean over the candidates, in nats), examples, steps, seconds.

    Raises:
        UserError: The loss is no longer finite; no usable snapshot or device.
        InvariantError: The rows read are not the snapshot's.
    """
    manifest, config = read_manifest(task.snapshot_path), task.config
    device = pick_device(comm, task.train)
    read, users = _read(comm, manifest, task)
    items = torch.from_numpy(task.items)
    network = new_network(BlenderShape(len(task.features), task.widths, tuple(config.hidden)), config.seed)
    _scale(comm, network, read, manifest)
    network = network.to(device)
    squares = [torch.zeros_like(p) for p in network.parameters()]
    state = {name: p.detach() for name, p in network.named_parameters()}
    state |= {f"squares.{n}": one for n, one in enumerate(squares)}
    parts = [asdict(one) for one in manifest.files]
    vectors = [float(np.abs(task.items).sum()), task.models, task.widths]
    key = config_hash(config, manifest.inputs, parts, task.features, vectors)
    history = checkpoint.resume(comm, task.model_path, key, state)
    plan = Plan.of([one.rows for one in manifest.files], config.batch_size)
    for epoch in range(len(history) + 1, config.epochs + 1):
        history.append(_run_epoch(comm, network, squares, (read, users, items), plan, config, epoch))
        if comm.rank == 0:
            log_event("hybrid_epoch", **history[-1], ranks=comm.size)
            checkpoint.save_checkpoint(task.model_path, epoch, state, {"history": history}, key)
    if comm.rank == 0:
        weights = {f"{NETWORK}{name}": one.detach().cpu() for name, one in network.state_dict().items()}
        weights |= {f"rotation.{name}": torch.from_numpy(one) for name, one in task.rotations.items()}
        described: dict[str, Any] = {"config": asdict(config), "features": task.features, "vectors": task.models}
        described |= {"widths": task.widths, "history": history, "inputs": manifest.inputs}
        checkpoint.save_model(task.model_path, weights, {**task.meta, **described})
        checkpoint.remove_checkpoints(task.model_path)
    comm.barrier()
    return history


def _read(comm: Comm, manifest: Manifest, task: BlenderTask) -> tuple[dict[int, Candidates], Tensor]:
    """This rank's files, and the vectors of their users."""
    names = [f"f_{n}" for n in range(len(task.features))]
    found = read_files(manifest, comm.rank, comm.size, [USER_IDX, ITEM_IDX, LABEL, *names])
    check_total(manifest, sum(len(one[USER_IDX]) for one in found.values()), comm)
    users = np.unique(np.concatenate([one[USER_IDX] for one in found.values()]).astype(np.int64))
    read = {}
    for number, one in found.items():
        n = len(one[USER_IDX])
        features = np.stack([one[name].astype(np.float32) for name in names], 1) if names else np.zeros((n, 0))
        place = np.searchsorted(users, one[USER_IDX])
        item = one[ITEM_IDX].astype(np.int64)
        if n and item.max() >= len(task.items):
            raise InvariantError(f"{manifest.path}: an item is outside of the catalogue of {len(task.items)}")
        read[number] = Candidates(place, item, features.astype(np.float32), one[LABEL].astype(np.float32))
    return read, read_users(manifest.path, users, task.models, task.widths)


def _scale(comm: Comm, network: BlenderNetwork, read: dict[int, Candidates], manifest: Manifest) -> None:
    """Mean and deviation of the features over all ranks' candidates; a feature that does not vary stays as it is."""
    width = network.shape.n_features
    sums = torch.zeros(2, width, dtype=torch.float64)
    for one in read.values():
        values = torch.from_numpy(one.features).double()
        sums += torch.stack([values.sum(0), (values * values).sum(0)])
    first, second = comm.allreduce_sum(sums) / max(1, manifest.rows)
    deviation = (second - first * first).clamp_min(0).sqrt()
    network.mean.copy_(first)
    network.deviation.copy_(torch.where(deviation > 1e-6, deviation, 1.0))


def _run_epoch(
    comm: Comm,
    network: BlenderNetwork,
    squares: list[Tensor],
    data: tuple[dict[int, Candidates], Tensor, Tensor],
    plan: Plan,
    config: HybridConfig,
    epoch: int,
) -> dict[str, Any]:
    """One pass over all candidates; see ``train``."""
    began, (read, users, items) = time.monotonic(), data
    order = {
        n: np.random.default_rng((config.seed, ORDER, epoch, n)).permutation(len(one.user)) for n, one in read.items()
    }
    total, device, parameters = 0.0, squares[0].device, list(network.parameters())
    for step in progress(range(plan.steps), total=plan.steps, name=f"hybrid epoch {epoch}", rank=comm.rank):
        loss = torch.zeros((), device=device)
        for number, one in read.items():
            rows = order[number][plan.slice(number, step)]
            if not len(rows):
                continue
            rng = np.random.default_rng((config.seed, DRAWS, epoch, step, number))
            drawn = rng.random((len(rows), network.shape.n_inputs), dtype=np.float32) >= config.dropout
            given = torch.from_numpy(one.features[rows]), users[one.user[rows]], items[one.item[rows]]
            keep = torch.from_numpy(drawn.astype(np.float32) / np.float32(1 - config.dropout))
            margin = network(*(part.to(device) for part in (*given, keep)))
            label = torch.from_numpy(one.label[rows]).to(device)
            loss = loss + F.binary_cross_entropy_with_logits(margin, label, reduction="sum")
        if loss.requires_grad:
            loss.backward()
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        sent = comm.allreduce_sum(torch.cat([*(part.flatten() for part in parts), loss.detach().view(1)]))
        *sums, summed = sent.split([*(p.numel() for p in parameters), 1])
        n = sum(plan.slice(lane, step).stop - plan.slice(lane, step).start for lane in range(len(plan.examples)))
        rate = config.learning_rate * (1.0 - (epoch - 1 + step / plan.steps) / config.epochs)
        with torch.no_grad():
            for parameter, kept, gradient in zip(parameters, squares, sums, strict=True):
                adagrad_(parameter, kept, gradient.view_as(parameter) / max(1, n), rate)
                parameter.grad = None
        total += float(summed)
        if not np.isfinite(total):
            raise UserError("training diverged", where=f"hybrid, epoch {epoch}", fix="lower hybrid.learning_rate")
    n, seconds = sum(plan.examples), round(time.monotonic() - began, 3)
    return {"epoch": epoch, "loss": total / n, "examples": n, "steps": plan.steps, "seconds": seconds}
