"""Training of the two towers: the run that every rank takes part in; knows neither Spark nor the tables.

The steps are those of :mod:`sparkrec.models.two_tower.step`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparkrec.errors import InvariantError, UserError
from sparkrec.log import log_event, progress
from sparkrec.models.two_tower.batches import (
    LABEL,
    SECONDS,
    WEIGHT,
    Sequences,
    code_columns,
    lane,
    sequences,
)
from sparkrec.models.two_tower.network import (
    Feature,
    TowerShape,
)
from sparkrec.models.two_tower.settings import TwoTowerConfig
from sparkrec.models.two_tower.step import (
    ORDER,
    Material,
    StepSums,
    Towers,
    local_batch,
    new_towers,
    prepare,
    train_step,
)
from sparkrec.ranks.checkpoint import MODEL_HASH, load_model, read_model, resume, save_model
from sparkrec.ranks.comm import Comm
from sparkrec.ranks.epochs import History, run_epochs
from sparkrec.ranks.feed import check_total, read_files
from sparkrec.ranks.snapshot import read_manifest
from sparkrec.settings.config import config_hash
from sparkrec.settings.sections import TrainConfig
from sparkrec.warehouse.tables import ITEM_IDX, USER_IDX

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class TowerTask:
    """All that decides on a training run."""

    snapshot_path: str
    model_path: str
    config: TwoTowerConfig
    train: TrainConfig
    n_users: int
    n_items: int
    user_features: tuple[Feature, ...]
    item_features: tuple[Feature, ...]
    item_codes: np.ndarray  # int32 [n_items, sum of widths], from item_feature_matrix
    as_of: int  # seconds since 1970: the examples lie before it, and the lists are for what comes after
    repeats: bool  # whether an item that the user has already may be recommended again: then it is an example too
    meta: dict[str, Any]  # JSON-able, into model.json
    second_outputs: int = 0  # of the second head, from two_tower_examples.second_outputs
    warm_start_path: str | None = None  # folder of an earlier model, whose rows are the first of this one's segments

    @property
    def key(self) -> str:
        """Hash of what a checkpoint must agree in to be resumed; neither ranks nor epochs count."""
        inputs = read_manifest(self.snapshot_path).inputs
        codes = hashlib.sha256(np.ascontiguousarray(self.item_codes).tobytes()).hexdigest()
        settings = {**dataclasses.asdict(self.config), "epochs": 0}
        features = [dataclasses.asdict(f) for f in (*self.user_features, *self.item_features)]
        sizes = self.n_users, self.n_items, self.as_of, self.repeats
        return config_hash(inputs, codes, settings, features, *sizes, self.begun_with)

    @property
    def begun_with(self) -> str | None:
        """Hash of the weights that the training begins with."""
        return str(read_model(self.warm_start_path)[MODEL_HASH]) if self.warm_start_path else None


def train_epoch(comm: Comm, towers: Towers, data: Material, config: TwoTowerConfig, epoch: int) -> dict[str, Any]:
    """One pass over all examples.

    Returns:
        epoch, loss (mean over all examples by weight), examples, steps, seconds; with a second head second_loss too.

    Raises:
        InvariantError: Not every example was seen exactly once.
    """
    began = time.monotonic()
    lanes = {
        number: lane(data.files[number], rows, (config.seed, ORDER, epoch, number), config.horizon_days)
        for number, rows in data.rows.items()
    }
    sums, seen = StepSums(), 0
    for step in progress(range(data.plan.steps), total=data.plan.steps, name=f"epoch {epoch}", rank=comm.rank):
        batch = local_batch(lanes, data, config, epoch, step)
        sums = sums.plus(train_step(comm, towers, data, batch, config, epoch, step))
        seen += len(batch.item)
    total = int(comm.allreduce_sum(torch.tensor([seen]))[0])
    if total != sum(data.plan.examples):
        raise InvariantError(f"epoch {epoch} saw {total} examples, there are {sum(data.plan.examples)}")
    second = {"second_loss": sums.second / max(sums.labelled, 1e-12)} if towers.shape.second_outputs else {}
    return {
        "epoch": epoch,
        "loss": sums.loss / max(sums.weight, 1e-12),
        **second,
        "examples": total,
        "steps": data.plan.steps,
        "seconds": round(time.monotonic() - began, 3),
    }


def tower_shape(
    config: TwoTowerConfig,
    n_users: int,
    n_items: int,
    user_features: Sequence[Feature],
    item_features: Sequence[Feature],
    second_outputs: int = 0,
) -> TowerShape:
    """The shape that the configuration and the night's indexes give.

    Raises:
        UserError: A setting outside of its range.
    """
    for name, good, fix in [
        ("temperature", config.temperature > 0, "above 0"),
        ("dropout", 0 <= config.dropout < 1, "from 0 to below 1"),
        ("history_length", config.history_length >= 1, "at least 1"),
        ("dim", config.dim >= 1, "at least 1"),
        ("horizon_days", config.horizon_days >= 0, "0 or more"),
        ("n_sample", config.n_sample >= 0, "0 or more"),
        ("windows_days", all(days > 0 for days in config.windows_days), "above 0, each"),
        ("second_weight", config.second_weight >= 0, "0 or more"),
        ("half_life_days", config.half_life_days is None or config.half_life_days > 0, "above 0, or null"),
    ]:
        if not good:
            raise UserError("wrong configuration value", where=f"two_tower.{name}={getattr(config, name)}", fix=fix)
    return TowerShape(
        n_users=n_users,
        n_items=n_items,
        dim=config.dim,
        hidden=tuple(config.hidden),
        user_features=tuple(user_features),
        item_features=tuple(item_features),
        windows_days=tuple(config.windows_days),
        history_length=config.history_length,
        temperature=config.temperature,
        normalize=config.normalize,
        history_pooling=config.history_pooling,
        second_outputs=second_outputs,
    )


def save_towers(path: str, towers: Towers, item_codes: np.ndarray, momentum: np.ndarray, model: dict[str, Any]) -> None:
    """Writes the model to serve: the table by segment, the dense weights, the items' codes and momentum.

    Args:
        path: The model's folder.
        towers: The trained weights.
        item_codes: int32 [n_items, widths], as trained on.
        momentum: float32 [n_items, n_momentum], as of the time that the model is for.
        model: JSON-able description; ``shape`` is added.
    """
    table = towers.served_table()
    weights = {f"rows.{name}": table[first : first + n] for name, (first, n) in towers.shape.segments.items()}
    weights |= {f"dense.{name}": p.detach() for name, p in towers.dense.named_parameters()}
    weights |= {"item_codes": torch.from_numpy(item_codes), "momentum": torch.from_numpy(momentum)}
    save_model(path, weights, {**model, "shape": dataclasses.asdict(towers.shape)})


def train(comm: Comm, task: TowerTask) -> list[dict[str, Any]]:
    """Trains a two-tower model from a snapshot; every rank calls it.

    A finished epoch is kept as a checkpoint, from which the same task goes on. The model folder then holds
    ``weights.safetensors`` and ``model.json``.

    Returns:
        The statistics of each epoch, as ``train_epoch`` gives them; the same on all ranks but for the seconds.
    """
    from sparkrec.ranks.launch import pick_device

    config = task.config
    shape = tower_shape(config, task.n_users, task.n_items, task.user_features, task.item_features, task.second_outputs)
    device = str(pick_device(comm, task.train))
    files, n_files = read_sequences(comm, task.snapshot_path, shape)
    data = prepare(
        comm, files, n_files, shape, config,
        item_codes=task.item_codes, as_of=task.as_of, repeats=task.repeats or config.repeats, device=device,
    )  # fmt: skip
    towers = new_towers(shape, config.seed, device)
    key = task.key if comm.rank == 0 else ""  # rank 0 alone keeps checkpoints
    history = _start(comm, task, towers, key)
    towers.share(comm)

    def save(done: History) -> None:
        scale = {"label_mean": data.label_mean, "label_std": data.label_std} if task.second_outputs else {}
        begun = {"warm_start": task.begun_with, "as_of": task.as_of}
        described = {
            **task.meta,
            "config": dataclasses.asdict(config),
            "history": done,
            **begun,
            **scale,
        }
        save_towers(task.model_path, towers, task.item_codes, data.clock.last(), described)

    return run_epochs(
        comm, task.model_path, key, history, config.epochs,
        run_epoch=lambda epoch: train_epoch(comm, towers, data, config, epoch - 1), tensors=towers.tensors,
        save=save, name="two_tower",
    )  # fmt: skip


def read_sequences(comm: Comm, path: str, shape: TowerShape) -> tuple[dict[int, Sequences], int]:
    """This rank's files of a snapshot of examples, and the number of all files; the rows are held to the manifest.

    Events are few bytes, so a rank keeps its share of them in memory and each epoch walks the same rows.
    """
    manifest = read_manifest(path)
    codes = code_columns(shape.user_features)
    labels = [LABEL] if shape.second_outputs else []
    wanted = [USER_IDX, ITEM_IDX, SECONDS, WEIGHT, *labels, *codes]
    found = read_files(manifest, comm.rank, comm.size, wanted)
    files = {}
    for number, columns in found.items():
        stacked = np.stack([columns[c] for c in codes], 1) if codes else np.zeros((len(columns[USER_IDX]), 0))
        head = (columns[USER_IDX], columns[ITEM_IDX], columns[SECONDS], columns[WEIGHT])
        files[number] = sequences(*head, stacked, columns.get(LABEL))
    check_total(manifest, sum(len(s) for s in files.values()), comm)
    return files, len(manifest.files)


def continue_with(towers: Towers, path: str) -> None:
    """Takes over the weights of an earlier model, whose users, items and codes are the first of each segment.

    Rows that it does not have, or has not learnt, stay as new ones begin. Adagrad's accumulators are no part of a
    model: they begin at 0 again.

    Raises:
        UserError: There is no such model, or its towers have another shape.
        InvariantError: It has more rows of a segment than there are now.
    """
    weights, _ = load_model(path)
    own = {f"dense.{name}": parameter for name, parameter in towers.dense.named_parameters()}
    theirs = {name: part for name, part in weights.items() if name.startswith("dense.")}
    if {n: p.shape for n, p in own.items()} != {n: p.shape for n, p in theirs.items()}:
        fix = "set two_tower.warm_start=false, or the dimensions, layers and features of that model"
        raise UserError("the earlier model has another shape", where=path, fix=fix)
    taken = 0
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(theirs[name])
        for name, (first, size) in towers.shape.segments.items():
            rows = weights.get(f"rows.{name}")
            if rows is None:
                continue
            if len(rows) > size:
                raise InvariantError(f"{path} has {len(rows)} rows of {name}, there are only {size} now")
            learnt = rows.abs().sum(1) > 0
            towers.table[first : first + len(rows)][learnt] = rows[learnt].to(towers.table.device)
            taken += int(learnt.sum())
    log_event("warm_start", path=path, rows=taken, new_rows=towers.shape.n_rows - taken)


def _start(comm: Comm, task: TowerTask, towers: Towers, key: str) -> History:
    """The epochs done of a checkpoint, or a beginning; rank 0 reads, and hands the weights on."""
    history = resume(comm, task.model_path, key, towers.tensors())
    if task.warm_start_path and not history:
        if comm.rank == 0:
            continue_with(towers, task.warm_start_path)
        for tensor in towers.tensors().values():
            tensor.copy_(comm.broadcast(tensor))
    return history
