"""A step of the two towers' training, and what it works on: weights, examples, candidates.

N ranks at the same global batch take the same steps as one: a batch is the same slices of the same files whoever
reads them, candidates and negatives are those of all ranks, the loss is a sum over all examples divided by their
weight on all ranks, and gradients are summed. The embedding table lies on every rank; a step reads, differentiates,
sums over ranks and updates only the rows that it touches.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparkrec.errors import UserError
from sparkrec.models.two_tower.batches import (
    Batch,
    Lane,
    Plan,
    Sequences,
    UserArrays,
    dropout_mask,
    join,
    lane_batch,
    positives,
)
from sparkrec.models.two_tower.clock import Clock, new_clock
from sparkrec.models.two_tower.loss import Terms, known_items, summed_loss
from sparkrec.models.two_tower.network import (
    PAD,
    ItemBatch,
    TowerShape,
    TwoTower,
    UserBatch,
    log_expected_count,
    new_table,
    second_loss,
)
from sparkrec.models.two_tower.settings import TwoTowerConfig
from sparkrec.ranks.comm import Comm, gather_rows
from sparkrec.ranks.shared_memory import SharedMemory

ADAGRAD_EPS = 1e-10


# Streams of random numbers, so that no two draws share a seed.
ORDER, USER_DROPOUT, ITEM_DROPOUT, NEGATIVES = range(4)


@dataclass
class Towers:
    """The weights and the optimiser's state; the same on every rank, or one and the same for all of them."""

    shape: TowerShape
    table: Tensor  # float32 [n_rows, dim]
    table_squares: Tensor  # float32 [n_rows, dim], Adagrad's sums of squared gradients
    dense: TwoTower
    dense_squares: list[Tensor]
    memory: SharedMemory | None = None  # where all ranks have one and the same table

    def share(self, comm: Comm) -> None:
        """Puts the table into memory that all ranks of this machine change together, where that can be."""
        if comm.memory and not self.table.is_cuda:
            table, squares = comm.memory.share(self.table), comm.memory.share(self.table_squares)
            if table is not None and squares is not None:
                self.table, self.table_squares, self.memory = table, squares, comm.memory

    def tensors(self) -> dict[str, Tensor]:
        """All state by name, for a checkpoint."""
        named = {"table": self.table, "table.squares": self.table_squares}
        for (name, weight), squares in zip(self.dense.named_parameters(), self.dense_squares, strict=True):
            named[f"dense.{name}"] = weight.detach()
            named[f"dense.{name}.squares"] = squares
        return named

    def served_table(self) -> Tensor:
        """The table with the rows that no gradient has ever reached set to zero: they know nothing."""
        trained = self.table_squares.sum(1, keepdim=True) > 0
        return self.table * trained


@dataclass(frozen=True)
class Material:
    """What a rank trains on."""

    files: dict[int, Sequences]  # this rank's
    rows: dict[int, np.ndarray]  # the examples among them
    plan: Plan
    clock: Clock
    item_codes: Tensor  # int64 [n_items, widths], table rows
    share: Tensor  # float32 [n_items], each item's share of the examples
    trained_items: Tensor  # int64, items with a positive share, ascending
    repeats: bool  # whether what a user has already may be recommended again: it is a negative then
    debias: np.ndarray | None  # float32 [n_items], factor of the weight of an item's examples
    label_mean: float  # of the ratings that the second head learns
    label_std: float


def new_towers(shape: TowerShape, seed: int, device: str = "cpu") -> Towers:
    """Fresh weights: the same on every rank, for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    table = new_table(shape, generator).to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        dense = TwoTower(shape).to(device)
    squares = [torch.zeros_like(p) for p in dense.parameters()]
    return Towers(shape, table, torch.zeros_like(table), dense, squares)


def prepare(
    comm: Comm,
    files: dict[int, Sequences],
    n_files: int,
    shape: TowerShape,
    config: TwoTowerConfig,
    *,
    item_codes: np.ndarray,
    as_of: int,
    repeats: bool,
    device: str = "cpu",
) -> Material:
    """Counts over all ranks what the steps need to know: examples of each file, of each item, and the clock."""
    clock = new_clock(comm, files.values(), as_of, shape.n_items, shape.windows_days)
    rows = {number: positives(seq, repeats) for number, seq in files.items()}
    tally = torch.zeros(n_files + shape.n_items, dtype=torch.int64)
    for number, chosen in rows.items():
        tally[number] = len(chosen)
        tally[n_files:] += torch.from_numpy(np.bincount(files[number].item[chosen], minlength=shape.n_items))
    tally = comm.allreduce_sum(tally)
    of_items = tally[n_files:]
    label_mean, label_std = _label_scale(comm, files, rows) if shape.second_outputs == 1 else (0.0, 1.0)
    return Material(
        files=files,
        rows=rows,
        plan=Plan.of(tally[:n_files].tolist(), config.batch_size),
        clock=clock.to(device),
        item_codes=shape.code_rows("item", torch.from_numpy(item_codes)).to(device),
        share=(of_items / of_items.sum().clamp(min=1)).float().to(device),
        trained_items=of_items.nonzero()[:, 0].to(device),
        repeats=repeats,
        debias=popularity_factor(of_items.numpy(), config.debias) if config.debias else None,
        label_mean=label_mean,
        label_std=label_std,
    )


def popularity_factor(count: np.ndarray, debias: float) -> np.ndarray:
    """float32 [n_items]: count ** -debias, 1 on average over the examples; 0 for an item without any.

    The inverse propensity of Schnabel et al., "Recommendations as Treatments" (ICML 2016), with popularity as the
    propensity and an exponent between 0 (none) and 1 (every item weighs the same), as Yang et al., "Unbiased Offline
    Recommender Evaluation" (RecSys 2018) have it.
    """
    factor = np.where(count > 0, np.maximum(count, 1.0) ** -debias, 0.0)
    mean = float((factor * count).sum() / max(count.sum(), 1))
    return (factor / mean if mean else factor).astype(np.float32)


def _label_scale(comm: Comm, files: dict[int, Sequences], rows: dict[int, np.ndarray]) -> tuple[float, float]:
    """Mean and deviation of the labels of all ranks' examples, so that the second head learns numbers around 0.

    Raises:
        UserError: No example has one.
    """
    labels = [files[number].label[chosen].astype(np.float64) for number, chosen in rows.items()]
    mine = np.concatenate([*labels, np.zeros(0)])
    mine = mine[~np.isnan(mine)]
    sums = torch.tensor([len(mine), mine.sum(), np.square(mine).sum()], dtype=torch.float64)
    n, total, squares = comm.allreduce_sum(sums).tolist()
    if not n:
        raise UserError("no event has a rating to learn", where="two_tower.second_head=rating", fix="set it to none")
    mean = total / n
    return mean, max(squares / n - mean * mean, 0.0) ** 0.5 or 1.0


def local_batch(lanes: dict[int, Lane], data: Material, config: TwoTowerConfig, epoch: int, step: int) -> Batch:
    """This rank's examples of a step: its files' slices."""
    parts = []
    for number, source in lanes.items():
        part = lane_batch(source, data.plan.slice(number, step), data.clock, config.history_length)
        seed = (config.seed, USER_DROPOUT, epoch, step, number)
        keep = dropout_mask(seed, len(part.item), config.dim, config.dropout)
        weight = part.weight if data.debias is None else part.weight * data.debias[part.item]
        parts.append(dataclasses.replace(part, keep=keep, weight=weight))
    return join(parts)


@dataclass(frozen=True)
class StepSums:
    """Sums over examples: of weighted losses, and of the weights that they are to be divided by."""

    loss: float = 0.0
    weight: float = 0.0
    second: float = 0.0  # of the second head
    labelled: float = 0.0  # weight of the examples that it has a label for

    def plus(self, more: StepSums) -> StepSums:
        """These and more."""
        return StepSums(
            self.loss + more.loss,
            self.weight + more.weight,
            self.second + more.second,
            self.labelled + more.labelled,
        )


def train_step(
    comm: Comm, towers: Towers, data: Material, batch: Batch, config: TwoTowerConfig, epoch: int, step: int
) -> StepSums:
    """One step of all ranks; the sums are over all ranks.

    All ranks make the same messages in the same order, three of their own and one that PyTorch makes for them:
    the examples (``allgather``), the candidates' vectors (``gather_rows``), in the backward pass the gradients of these
    vectors (``gather_rows`` again, so ``backward`` is called on every rank, also on one without an example), and the
    sums of all other gradients (``_update``).
    """
    device = towers.table.device
    width = data.plan.width(comm.size, step)
    users = user_batch(towers.shape, batch.users, batch.keep, device)
    item = torch.from_numpy(batch.item).to(device)
    # One message for all that the ranks must know of each other's examples: items, and table rows of the users.
    mine = torch.cat([item[:, None], users.user[:, None], users.history, users.codes], dim=1)
    examples = comm.allgather(_padded(mine, width))
    drawn = examples[:, 0][examples[:, 0] != PAD]
    candidates, count, log_q = draw_candidates(data, drawn, item, config, epoch, step)
    shard = _item_shard(comm, towers.shape, data, candidates, config, epoch, step)
    touched = _touched_rows(examples[:, 1:], candidates, data, towers.shape)
    block = towers.table.index_select(0, touched).requires_grad_()
    z, a = towers.dense.users(block, _in_block_users(users, touched))
    z_items = gather_rows(towers.dense.items(block, _in_block_items(shard, touched)), comm)[: len(candidates)]
    target = torch.searchsorted(candidates, item)
    hidden = None if data.repeats else known_items(users.history, towers.shape, candidates, target)
    weight = torch.from_numpy(batch.weight).to(device)
    days, runs = np.unique(batch.day, return_counts=True)  # in their order
    phi = data.clock.momentum(torch.from_numpy(days).to(device), candidates)
    terms = Terms(config.temperature, phi, runs.tolist(), target, count, log_q, hidden, weight)
    loss = summed_loss(z, z_items, a, terms)
    second, labelled = _second(towers, data, batch, z, z_items[target], weight)
    (loss + config.second_weight * second).backward()
    sums = torch.stack([loss.detach(), weight.sum(), second.detach(), labelled])
    return _update(comm, towers, block, touched, sums, config.learning_rate)


def _second(
    towers: Towers, data: Material, batch: Batch, z: Tensor, z_items: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """The second head's weighted loss, summed, and the weight of the examples that have a label."""
    if not towers.shape.second_outputs:
        return z.new_zeros(()), z.new_zeros(())
    label = (torch.from_numpy(batch.label).to(z.device) - data.label_mean) / data.label_std
    losses = second_loss(towers.dense.second_scores(z, z_items), label)
    return (losses * weight).sum(), (weight * ~label.isnan()).sum()


def draw_candidates(
    data: Material, drawn: Tensor, item: Tensor, config: TwoTowerConfig, epoch: int, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The candidates of a step, the same on all ranks: ids ascending, times drawn, weighted log Q.

    Where ``n_sample`` reaches the number of trained items they are all of those, once each and with nothing to correct;
    otherwise the items of all ranks' examples and ``n_sample`` uniform ones.

    Args:
        data: What the rank trains on.
        drawn: int64, items of all ranks' examples.
        item: int64, items of this rank's examples.
        config: Of the model.
        epoch: For the seed.
        step: For the seed.
    """
    pool = data.trained_items
    if config.n_sample >= len(pool):
        return pool, torch.ones(len(pool), device=pool.device), torch.zeros(len(pool), device=pool.device)
    n_batch = len(drawn)
    seed = (config.seed, NEGATIVES, epoch, step)
    chosen = np.random.default_rng(seed).integers(0, len(pool), config.n_sample)
    uniform = pool[torch.from_numpy(chosen).to(pool.device)]
    candidates, count = torch.cat([drawn, uniform]).unique(return_counts=True)
    if not config.gather_negatives:  # those that other ranks alone drew count 0 times: they are no negatives
        n_batch = len(item)
        count = torch.bincount(torch.searchsorted(candidates, torch.cat([item, uniform])), minlength=len(candidates))
    log_q = log_expected_count(data.share[candidates], n_batch, config.n_sample / len(pool))
    return candidates, count.float(), config.logq * log_q


def user_batch(shape: TowerShape, arrays: UserArrays, keep: np.ndarray | None, device: Any) -> UserBatch:
    """The arrays as tensors, ids and codes as rows of the table."""
    return UserBatch(
        user=shape.id_rows("user", torch.from_numpy(arrays.user)).to(device),
        history=shape.id_rows("item", torch.from_numpy(arrays.history)).to(device),
        history_days=torch.from_numpy(arrays.history_days).to(device),
        codes=shape.code_rows("user", torch.from_numpy(arrays.codes)).to(device),
        numeric=torch.from_numpy(arrays.numeric).to(device),
        keep=None if keep is None else torch.from_numpy(keep).to(device),
    )


def adagrad_(weight: Tensor, squares: Tensor, gradient: Tensor, rate: float) -> None:
    """One step of Adagrad in place (Duchi et al. 2011, diagonal form), as torch.optim.Adagrad takes it."""
    squares.addcmul_(gradient, gradient)
    weight.addcdiv_(gradient, squares.sqrt() + ADAGRAD_EPS, value=-rate)


def _item_shard(
    comm: Comm, shape: TowerShape, data: Material, candidates: Tensor, config: TwoTowerConfig, epoch: int, step: int
) -> ItemBatch:
    """This rank's equal part of the candidates; the last one is padded."""
    n = -(-len(candidates) // comm.size)
    mine = slice(comm.rank * n, (comm.rank + 1) * n)
    keep = dropout_mask((config.seed, ITEM_DROPOUT, epoch, step), n * comm.size, config.dim, config.dropout)
    padded = _padded(candidates, n * comm.size)[mine]
    codes = torch.where((padded != PAD)[:, None], data.item_codes[padded.clamp(min=0)], PAD)
    kept = None if keep is None else torch.from_numpy(keep[mine]).to(candidates.device)
    return ItemBatch(shape.id_rows("item", padded), codes, kept)


def _touched_rows(of_users: Tensor, candidates: Tensor, data: Material, shape: TowerShape) -> Tensor:
    """Table rows that the step touches on any rank, ascending: the same on all ranks."""
    of_items = torch.cat([shape.id_rows("item", candidates), data.item_codes[candidates].flatten()])
    rows = torch.cat([of_users.flatten(), of_items]).unique()
    return rows[rows != PAD]


def _update(comm: Comm, towers: Towers, block: Tensor, touched: Tensor, step_sums: Tensor, rate: float) -> StepSums:
    """Sums the gradients and the step's sums of all ranks, and takes the step.

    Where the ranks share the table, each changes a part of the touched rows. No rank reads them before all have done
    so: the next step begins with a message, which comes from a rank that has.
    """
    dense = list(towers.dense.parameters())
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in (block, *dense)]
    of_block, small = gradients[0], torch.cat([*(g.flatten() for g in gradients[1:]), step_sums])
    own = slice(0, len(touched))
    if towers.memory:
        own = towers.memory.part_of(len(touched))
        of_block, small = towers.memory.sum_parts([of_block, small], [own, slice(None)])
    else:
        of_block, small = _split(comm.allreduce_sum(torch.cat([of_block.flatten(), small])), of_block)
    total = StepSums(*small[-len(step_sums) :].tolist())
    share = 1.0 / max(total.weight, 1e-12)
    mine, rows = touched[own], block.detach()[own]
    squares = towers.table_squares.index_select(0, mine)
    adagrad_(rows, squares, of_block.mul_(share), rate)
    towers.table.index_copy_(0, mine, rows)
    towers.table_squares.index_copy_(0, mine, squares)
    sums = small[: -len(step_sums)].mul_(share).split([p.numel() for p in dense])
    with torch.no_grad():
        for parameter, state, gradient in zip(dense, towers.dense_squares, sums, strict=True):
            adagrad_(parameter, state, gradient.view_as(parameter), rate)
            parameter.grad = None
    return total


def _split(flat: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    return flat[: like.numel()].view_as(like), flat[like.numel() :]


def _padded(rows: Tensor, n: int) -> Tensor:
    """The rows [m, …] with rows of PAD up to n."""
    return torch.cat([rows, rows.new_full((n - len(rows), *rows.shape[1:]), PAD)])


def _place(rows: Tensor, touched: Tensor) -> Tensor:
    return torch.where(rows == PAD, PAD, torch.searchsorted(touched, rows))


def _in_block_users(users: UserBatch, touched: Tensor) -> UserBatch:
    return users._replace(
        user=_place(users.user, touched), history=_place(users.history, touched), codes=_place(users.codes, touched)
    )


def _in_block_items(items: ItemBatch, touched: Tensor) -> ItemBatch:
    return items._replace(item=_place(items.item, touched), codes=_place(items.codes, touched))
