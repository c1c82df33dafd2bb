"""The session-parallel GRU's training loop, the same on one rank and on many.

Independent of the number of ranks by construction: lanes belong to files, negatives and dropout masks come from a
common seed, and the candidates of a step are the targets of all ranks' lanes and the additional negatives. So the rows
of the embedding that a step touches are the same set on every rank, and their gradients travel as one dense block.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparkrec.config import GruConfig, TrainConfig, config_hash
from sparkrec.errors import InvariantError, UserError
from sparkrec.log import log_event, progress
from sparkrec.models import gru as model
from sparkrec.training import checkpoint
from sparkrec.training.comm import Comm
from sparkrec.training.feed import check_total, read_files
from sparkrec.training.lanes import NO_TARGET, Chunk, LaneTable, chunks, lane_table, lanes_of_files, walk_lanes
from sparkrec.training.launch import pick_device
from sparkrec.training.optimizer import AdagradMomentum
from sparkrec.training.sampling import PopularitySampler
from sparkrec.training.snapshot import Manifest, read_manifest

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

GROUP, ORDER = "session", ("start", "session", "position")
_CHUNK_IDS = 2_000_000  # ids of a chunk: drawn and gathered at once


def snapshot_rows(sessions: DataFrame) -> DataFrame:
    """Sessions as the flat rows that the GRU trains on; write them with ``GROUP``, ``ORDER``, ``n_slots=gru.lanes``.

    Args:
        sessions: Columns of ``tables.SESSIONS``.

    Returns:
        session bigint (a hash of session_id), start bigint (µs), position int, item int.
    """
    from pyspark.sql import functions as F

    return sessions.select(
        F.xxhash64("session_id").alias("session"),
        F.unix_micros("start_ts").alias("start"),
        F.posexplode("items").alias("position", "item"),
    )


def train(
    comm: Comm,
    snapshot_path: str,
    model_path: str,
    config: GruConfig,
    train_config: TrainConfig,
    n_items: int,
    meta: dict[str, Any],
) -> list[dict[str, Any]]:
    """Trains on a snapshot and writes the model; goes on from the last checkpoint of the same run.

    Args:
        comm: The ranks.
        snapshot_path: A snapshot of ``snapshot_rows``.
        model_path: The model's folder, reached by rank 0 at least.
        config: The model's settings.
        train_config: The ranks' settings.
        n_items: Size of the catalogue; items are 0 … n_items − 1.
        meta: JSON-able; kept in ``model.json``.

    Returns:
        For each epoch: epoch, loss (mean of the events), events, steps, seconds, events_per_second, rows_seen.

    Raises:
        InvariantError: The rows read are not the snapshot's, or an item is outside of the catalogue.
        UserError: The loss is no longer finite; no usable snapshot or device.
    """
    manifest = read_manifest(snapshot_path)
    device = pick_device(comm, train_config)
    counts = _item_counts(manifest, comm, n_items)
    key = config_hash(config, manifest.inputs, n_items, [asdict(f) for f in manifest.files])
    shape = model.GruShape(n_items, tuple(config.layers))
    state, history = _start(shape, config, comm, device, model_path, key)
    trainer = Trainer.create(shape, config, counts.to(device))
    for epoch in range(len(history) + 1, config.epochs + 1):
        stats = _run_epoch(trainer, state, manifest, comm, epoch)
        history.append(stats)
        if comm.rank == 0:
            log_event("gru_epoch", **stats, ranks=comm.size)
            checkpoint.save_checkpoint(model_path, epoch, state.tensors(), {"history": history}, key)
    if comm.rank == 0:
        weights = {**model.to_tensors(state.parameters()), "counts": counts}
        described = {"model": "gru", "config": asdict(config), "n_items": n_items, "inputs": manifest.inputs}
        described |= {"history": history, "rows": manifest.rows, "sessions": manifest.groups, "meta": meta}
        checkpoint.save_model(model_path, weights, described)
        checkpoint.remove_checkpoints(model_path)
    comm.barrier()
    return history


# ---- state -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GruState:
    """Weights with their accumulators and velocities, changed in place."""

    shape: model.GruShape
    rows: torch.Tensor  # [n_items, 3, dim + 1]: of each item the weights (bias last), accumulator, velocity
    flat: torch.Tensor  # [3, weights of the layers]

    @classmethod
    def new(cls, parameters: model.Parameters) -> GruState:
        """The state before the first step: accumulators and velocities 0."""
        zero = torch.zeros_like(parameters.table)
        rows = torch.stack([parameters.table, zero, zero], dim=1)
        flat = torch.stack([parameters.flat, torch.zeros_like(parameters.flat), torch.zeros_like(parameters.flat)])
        return cls(parameters.shape, rows, flat)

    def tensors(self) -> dict[str, torch.Tensor]:
        """For a checkpoint."""
        return {"rows": self.rows, "flat": self.flat}

    def parameters(self) -> model.Parameters:
        """The weights alone, as views."""
        return model.Parameters(self.shape, self.rows[:, 0], self.flat[0])


def _start(
    shape: model.GruShape, config: GruConfig, comm: Comm, device: torch.device, path: str, key: str
) -> tuple[GruState, list[dict[str, Any]]]:
    """The state and history of the newest checkpoint, or a new state; rank 0 reads, all get the same."""
    found = checkpoint.load_checkpoint(path, key) if comm.rank == 0 else None
    state = GruState.new(model.init_parameters(shape, torch.Generator().manual_seed(config.seed)))
    if found is not None:
        state = GruState(shape, found[1]["rows"], found[1]["flat"])
    done = int(comm.broadcast(torch.tensor([found[0] if found else 0]))[0])
    if done and comm.size > 1:
        state = GruState(shape, comm.broadcast(state.rows), comm.broadcast(state.flat))
    history = found[2]["history"] if found else [{"epoch": e} for e in range(1, done + 1)]
    return GruState(shape, state.rows.to(device), state.flat.to(device)), history


def _item_counts(manifest: Manifest, comm: Comm, n_items: int) -> torch.Tensor:
    """int64 [n_items], events of each item in the snapshot."""
    counts = np.zeros(n_items, dtype=np.int64)
    for columns in read_files(manifest, comm.rank, comm.size, ["item"]).values():
        item = columns["item"]
        if len(item) and (item.min() < 0 or item.max() >= n_items):
            raise InvariantError(f"{manifest.path}: an item is outside of the catalogue of {n_items}")
        counts += np.bincount(item, minlength=n_items)
    summed = comm.allreduce_sum(torch.from_numpy(counts))
    if int(summed.sum()) != manifest.rows or manifest.rows == manifest.groups:
        raise UserError("no pair of events to train on", where=manifest.path, fix="more events, or a larger gap")
    return summed


# ---- epochs ----------------------------------------------------------------------------------------------------------


def _run_epoch(trainer: Trainer, state: GruState, manifest: Manifest, comm: Comm, epoch: int) -> dict[str, Any]:
    began = time.perf_counter()
    table = _read_lanes(manifest, trainer.config.lanes, comm)
    device = state.flat.device
    seed = trainer.config.seed * 1_000_003 + epoch
    draws, drops = (torch.Generator(device).manual_seed(2 * seed + i) for i in range(2))
    hidden = [torch.zeros(len(table.places), w, device=device) for w in state.shape.layers]
    places = table.places.to(device)
    steps_per_chunk = max(1, _CHUNK_IDS // max(1, trainer.config.n_sample + len(table.order)))
    total, events = torch.zeros((), dtype=torch.float64, device=device), 0
    steps = iter(progress(range(table.length), total=table.length, name=f"gru epoch {epoch}", rank=comm.rank))
    for chunk in chunks(table, steps_per_chunk, comm):
        chunk = Chunk(chunk.input.to(device), chunk.target.to(device), chunk.reset.to(device))
        samples = trainer.sampler.draw((len(chunk.target), trainer.config.n_sample), draws)
        valid = (chunk.target != NO_TARGET).sum(1).tolist()
        for k, n_valid in enumerate(valid):
            next(steps)
            batch = make_batch(chunk, k, n_valid, samples[k], places)
            total += trainer.step(state, hidden, batch, drops, comm)
            events += n_valid
        if not torch.isfinite(total):
            raise UserError("training diverged", where=f"gru, epoch {epoch}", fix="lower gru.learning_rate")
    next(steps, None)
    seconds = time.perf_counter() - began
    if events != manifest.rows - manifest.groups:
        raise InvariantError(f"{manifest.path}: {events} pairs seen, expected {manifest.rows - manifest.groups}")
    return {
        "epoch": epoch,
        "loss": float(total) / events,
        "events": events,
        "steps": table.length,
        "rows_seen": manifest.rows,
        "seconds": round(seconds, 3),
        "events_per_second": round(events / seconds, 1),
    }


def _read_lanes(manifest: Manifest, n_lanes: int, comm: Comm) -> LaneTable:
    """One epoch's rows from the feed, held against the manifest, on their lanes."""
    widths = lanes_of_files(n_lanes, [f.rows for f in manifest.files])
    parts = read_files(manifest, comm.rank, comm.size, ["session", "item"])
    check_total(manifest, sum(len(c["item"]) for c in parts.values()), comm)
    lanes = {f: walk_lanes(c["session"], c["item"], widths[f]) for f, c in parts.items() if widths[f]}
    return lane_table(lanes, widths, comm)


# ---- steps -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """One step: what all ranks know of all lanes, and this rank's part."""

    rows: torch.Tensor  # int64 [R], distinct: inputs, targets and negatives of all valid lanes
    n_target: torch.Tensor  # float [R], targets of lanes that are this row
    n_sampled: torch.Tensor  # float [R], additional negatives that are this row
    n_valid: int  # valid lanes of all ranks
    own: torch.Tensor | None  # int64 [B], this rank's valid lanes among its lanes; None: all of them
    lanes: torch.Tensor  # int64 [B], the same among all ranks' lanes
    n_lanes: int  # lanes of all ranks
    reset: torch.Tensor  # bool [this rank's lanes]
    input: torch.Tensor  # int64 [B], places in ``rows``
    target: torch.Tensor  # int64 [B], places in ``rows``


def make_batch(chunk: Chunk, k: int, n_valid: int, samples: torch.Tensor, places: torch.Tensor) -> Batch:
    """Step ``k`` of a chunk for the rank whose lanes are at ``places``."""
    inputs, targets = chunk.input[k], chunk.target[k]
    n_lanes = len(targets)
    own, lanes, compact = None, places, places
    if n_valid < n_lanes:
        valid = targets != NO_TARGET
        compact = valid.cumsum(0) - 1
        own = valid[places].nonzero().squeeze(1)
        lanes = places[own]
        compact = compact[lanes]
        inputs, targets = inputs[valid], targets[valid]
    rows, place = torch.unique(torch.cat([inputs, targets, samples]), return_inverse=True)
    return Batch(
        rows,
        torch.bincount(place[n_valid : 2 * n_valid], minlength=len(rows)).float(),
        torch.bincount(place[2 * n_valid :], minlength=len(rows)).float(),
        n_valid,
        own,
        lanes,
        n_lanes,
        chunk.reset[k][places],
        place[compact],
        place[n_valid + compact],
    )


@dataclass(frozen=True)
class Trainer:
    """What the steps need besides the state."""

    config: GruConfig
    sampler: PopularitySampler
    optimizer: AdagradMomentum
    log_q: torch.Tensor  # [n_items], logq * log(count): the correction of a target
    target_weight: torch.Tensor  # [n_items], count ** -logq: weight of a target as a candidate
    sample_weight: torch.Tensor  # [n_items], count ** (-logq * alpha): of an additional negative

    @classmethod
    def create(cls, shape: model.GruShape, config: GruConfig, counts: torch.Tensor) -> Trainer:
        """Builds the sampler, the optimizer and the tables of the log Q correction."""
        sampler = PopularitySampler.from_counts(counts, config.sample_alpha)
        log_q = config.logq * counts.clamp_min(1).double().log()
        weights = ((-log_q).exp().float(), (-config.sample_alpha * log_q).exp().float())
        return cls(config, sampler, AdagradMomentum(config.learning_rate, config.momentum), log_q.float(), *weights)

    @torch.no_grad()
    def step(
        self, state: GruState, hidden: list[torch.Tensor], batch: Batch, drops: torch.Generator, comm: Comm
    ) -> torch.Tensor:
        """One step of all lanes: updates ``state`` and this rank's ``hidden`` states in place.

        Args:
            state: Weights and optimizer state, the same on all ranks.
            hidden: For each layer [this rank's lanes, width].
            batch: The step.
            drops: Common generator of the dropout masks.
            comm: The ranks.

        Returns:
            The loss summed over the valid lanes of all ranks.
        """
        block = state.rows.index_select(0, batch.rows)  # [R, 3, dim + 1]
        weights, cells = block[:, 0], model.cells_of(state.shape, state.flat[0])
        masks = self._masks(state.shape, batch, drops)
        x = _dropped(weights.index_select(0, batch.input)[:, :-1], masks[0])
        outs, tapes = [], []
        for cell, h, mask in zip(cells, hidden, masks[1:], strict=True):
            h.masked_fill_(batch.reset[:, None], 0.0)
            x, tape = model.cell_forward(cell, x, h if batch.own is None else h[batch.own])
            x = _dropped(x, mask)
            outs.append(x)
            tapes.append(tape)
        last = torch.cat([x, x.new_ones(len(x), 1)], dim=1)  # its last column meets the bias
        loss, d_scores = self._loss(last @ weights.t(), batch)
        d_scores.mul_(1.0 / batch.n_valid)
        grad = d_scores.t() @ last  # [R, dim + 1]
        flat_grad = torch.empty_like(state.flat[0])
        d = d_scores @ weights[:, :-1]
        grads = model.cells_of(state.shape, flat_grad)
        for i in reversed(range(len(cells))):
            d = model.cell_backward(cells[i], tapes[i], _dropped(d, masks[i + 1]), grads[i])
        grad[:, :-1].index_add_(0, batch.input, _dropped(d, masks[0]))
        grad, flat_grad, loss = _summed(comm, grad, flat_grad, loss)
        self._update(state, batch, block, grad, flat_grad)
        for h, out in zip(hidden, outs, strict=True):
            h.copy_(out) if batch.own is None else h.index_copy_(0, batch.own, out)
        return loss

    def _loss(self, scores: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        if self.config.loss == "bpr-max":
            count = batch.n_target + batch.n_sampled
            return model.bpr_max(scores, batch.target, count, self.config.bpreg, self.config.elu)
        weight = batch.n_target * self.target_weight[batch.rows] + batch.n_sampled * self.sample_weight[batch.rows]
        log_expected = self.log_q[batch.rows[batch.target]]
        return model.sampled_cross_entropy(scores, batch.target, weight.log(), log_expected)

    def _masks(self, shape: model.GruShape, batch: Batch, drops: torch.Generator) -> list[torch.Tensor | None]:
        """Dropout masks of the embedding and of each layer's output, drawn for all lanes, of which this rank's."""
        rates = [self.config.dropout_embedding, *[self.config.dropout_hidden] * len(shape.layers)]
        masks: list[torch.Tensor | None] = []
        for rate, width in zip(rates, (shape.dim, *shape.layers), strict=True):
            if rate == 0:
                masks.append(None)
                continue
            mask = torch.empty(batch.n_lanes, width, device=drops.device).bernoulli_(1 - rate, generator=drops)
            mask = mask if len(batch.lanes) == batch.n_lanes else mask.index_select(0, batch.lanes)
            masks.append(mask.div_(1 - rate))
        return masks

    def _update(
        self, state: GruState, batch: Batch, block: torch.Tensor, grad: torch.Tensor, flat_grad: torch.Tensor
    ) -> None:
        """Adagrad with momentum on the touched rows and the layers."""
        # A row that is only an input has no output bias in this step, so its bias and velocity rest.
        only_input = (batch.n_target + batch.n_sampled == 0).nonzero().squeeze(1)
        biases = block[only_input, :, -1]
        self.optimizer.step(block[:, 0], block[:, 1], block[:, 2], grad)
        block[only_input, :, -1] = biases
        state.rows.index_copy_(0, batch.rows, block)
        self.optimizer.step(state.flat[0], state.flat[1], state.flat[2], flat_grad)


def _dropped(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return x if mask is None else x * mask


def _summed(
    comm: Comm, grad: torch.Tensor, flat_grad: torch.Tensor, loss: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums all that a step sends over the ranks, in one message."""
    if comm.size == 1:
        return grad, flat_grad, loss
    parts = [grad.numel(), flat_grad.numel(), 1]
    sent = comm.allreduce_sum(torch.cat([grad.reshape(-1), flat_grad, loss.reshape(1)]))
    summed, flat_sum, loss_sum = sent.split(parts)
    return summed.view_as(grad), flat_sum, loss_sum[0]
