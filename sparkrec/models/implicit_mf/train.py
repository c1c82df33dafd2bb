"""Training of the factors: the run that every rank takes part in; knows neither Spark nor the tables.

LearnBPR (Rendle et al. 2009, figure 4): for a pair (u, i) that was taken and an item j that the user did not take, the
factors of all three move along the gradient of the loss and of λ/2 |·|². Pairs are taken in turn instead of drawn with
replacement, several to a step, by Adagrad. A step takes a slice of every file of the snapshot, and what is drawn
depends on seed, epoch and step alone: the model does not depend on the number of ranks.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparkrec.errors import InvariantError, NothingToTrain, UserError
from sparkrec.log import progress
from sparkrec.models.implicit_mf.loss import first_violation, losses, rank_weight
from sparkrec.models.implicit_mf.settings import ImplicitMfConfig
from sparkrec.models.two_tower.batches import Plan
from sparkrec.models.two_tower.step import adagrad_
from sparkrec.ranks import checkpoint
from sparkrec.ranks.comm import Comm, touched_rows
from sparkrec.ranks.epochs import run_epochs
from sparkrec.ranks.feed import check_total, read_files
from sparkrec.ranks.launch import pick_device
from sparkrec.ranks.sampling import PopularitySampler
from sparkrec.ranks.snapshot import Manifest, read_manifest
from sparkrec.settings.config import config_hash
from sparkrec.settings.sections import TrainConfig
from sparkrec.warehouse.tables import CONFIDENCE, ITEM_IDX, USER_IDX

ORDER, DRAWS = range(2)  # of the seeds
ROUNDS = 10  # an item that the user took is drawn anew so often; then one of the others, uniformly
_FIRST = 0.05  # deviation of factors before the first step
_SMALL = 1e-6  # Adagrad's sums begin with it: gradients that cancel but for rounding move next to nothing


@dataclass(frozen=True)
class MfTask:
    """All that decides on a training run."""

    snapshot_path: str
    model_path: str
    config: ImplicitMfConfig
    train: TrainConfig
    n_users: int
    n_items: int
    meta: dict[str, Any]  # JSON-able, into model.json

    @property
    def key(self) -> str:
        """Hash of what a checkpoint must agree in to be resumed; neither ranks nor epochs count."""
        settings = dataclasses.replace(self.config, epochs=1)
        return config_hash(settings, read_manifest(self.snapshot_path).inputs, self.n_users, self.n_items)


class Pairs(NamedTuple):
    """Pairs of a file; n of them."""

    user: np.ndarray  # int64 [n]
    item: np.ndarray  # int64 [n]
    weight: np.ndarray  # float32 [n]


@dataclass(frozen=True)
class Material:
    """What a rank trains on.

    Attributes:
        pairs: Of all of this rank's files.
        files: Number of each of them, and the place of its first pair among ``pairs``.
        taken: int64, ascending: user · n_items + item of the pairs.
        plan: The steps, over the files of all ranks.
        sampler: Draws items.
        user_count, item_count: int64 [n_users], [n_items], pairs of all ranks.
        n_items: Size of the index.
        n_known: Items with a pair.
    """

    config: ImplicitMfConfig
    pairs: Pairs
    files: dict[int, int]
    taken: np.ndarray
    plan: Plan
    sampler: PopularitySampler
    user_count: np.ndarray
    item_count: np.ndarray
    n_items: int
    n_known: int

    def others(self, user: int) -> np.ndarray:
        """int64: the items with a pair that a user of this rank did not take."""
        first, last = np.searchsorted(self.taken, [user * self.n_items, (user + 1) * self.n_items])
        return np.setdiff1d(np.flatnonzero(self.item_count), self.taken[first:last] - user * self.n_items)


@dataclass(frozen=True)
class State:
    """The factors and Adagrad's sums, changed in place.

    A row for each user, then for each item. The last column is the item's bias; a user's is 1 and stays so.
    """

    table: Tensor  # float32 [n_users + n_items, dim + 1]
    squares: Tensor

    @classmethod
    def new(cls, n_users: int, n_items: int, config: ImplicitMfConfig) -> State:
        """The state before the first step: the same for the same seed."""
        generator = torch.Generator().manual_seed(config.seed)
        table = torch.randn(n_users + n_items, config.dim + 1, generator=generator) * _FIRST
        table[:n_users, -1], table[n_users:, -1] = 1.0, 0.0
        return cls(table, torch.full_like(table, _SMALL))

    def to(self, device: torch.device) -> State:
        """The state on a device."""
        return State(self.table.to(device), self.squares.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """All state by name, for a checkpoint."""
        return {"table": self.table, "table.squares": self.squares}


class Examples(NamedTuple):
    """Examples of one rank in one step: n pairs, and m items drawn for each."""

    user: Tensor  # int64 [n]
    item: Tensor  # int64 [n]
    weight: Tensor  # float32 [n]
    drawn: Tensor  # int64 [n, m]
    there: Tensor  # bool [n, m]: the user did not take it
    factor: Tensor | None = None  # float32 [n], of the loss: warp's weight of the rank


def train(comm: Comm, task: MfTask) -> list[dict[str, Any]]:
    """Trains on a snapshot of pairs; every rank calls it. A finished epoch is kept as a checkpoint.

    Returns:
        For each epoch: epoch, loss (mean over the pairs by weight), examples, steps, without (pairs against which
        nothing could be drawn), seconds.

    Raises:
        NothingToTrain: There is no pair.
        UserError: The loss is no longer finite; no usable snapshot or device.
        InvariantError: The rows read are not the snapshot's.
    """
    manifest, config = read_manifest(task.snapshot_path), task.config
    device = pick_device(comm, task.train)
    if not manifest.rows:
        raise NothingToTrain("no interactions to learn from", where=manifest.path, fix="see prepare.support")
    data = prepare(comm, task, read_pairs(comm, manifest), [one.rows for one in manifest.files])
    state = State.new(task.n_users, task.n_items, config)
    key = task.key if comm.rank == 0 else ""
    history = checkpoint.resume(comm, task.model_path, key, state.tensors())
    state = state.to(device)
    return run_epochs(
        comm, task.model_path, key, history, config.epochs,
        run_epoch=lambda epoch: run_epoch(comm, state, data, epoch), tensors=state.tensors,
        save=lambda done: save(task, state, data, done), name="implicit_mf",
    )  # fmt: skip


def read_pairs(comm: Comm, manifest: Manifest) -> dict[int, Pairs]:
    """This rank's files of a snapshot of pairs; the rows are held to the manifest."""
    found = read_files(manifest, comm.rank, comm.size, [USER_IDX, ITEM_IDX, CONFIDENCE])
    files = {
        number: Pairs(
            columns[USER_IDX].astype(np.int64),
            columns[ITEM_IDX].astype(np.int64),
            columns[CONFIDENCE].astype(np.float32),
        )
        for number, columns in found.items()
    }
    check_total(manifest, sum(len(one.user) for one in files.values()), comm)
    return files


def prepare(comm: Comm, task: MfTask, files: dict[int, Pairs], n_pairs: list[int]) -> Material:
    """Counts over all ranks what the steps need to know.

    Args:
        comm: The ranks.
        task: What is to be trained.
        files: This rank's pairs.
        n_pairs: How many each file has, of all ranks.
    """
    config, nothing = task.config, Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    pairs = Pairs(
        *(np.concatenate([getattr(nothing, k), *(getattr(f, k) for f in files.values())]) for k in Pairs._fields)
    )
    firsts = np.cumsum([0, *(len(one.user) for one in files.values())])
    user_count, item_count = (
        comm.allreduce_sum(torch.from_numpy(np.bincount(rows, minlength=size)))
        for rows, size in ((pairs.user, task.n_users), (pairs.item, task.n_items))
    )
    exponent = config.ns_exponent if config.negatives == "popularity" else 0.0
    return Material(
        config=config,
        pairs=pairs,
        files=dict(zip(files, firsts[:-1].tolist(), strict=True)),
        taken=np.sort(pairs.user * task.n_items + pairs.item),
        plan=Plan.of(n_pairs, config.batch_size),
        sampler=PopularitySampler.from_counts(item_count, exponent),
        user_count=user_count.numpy(),
        item_count=item_count.numpy(),
        n_items=task.n_items,
        n_known=int((item_count > 0).sum()),
    )


def run_epoch(comm: Comm, state: State, data: Material, epoch: int) -> dict[str, Any]:
    """One pass over all pairs; see ``train``."""
    began, plan = time.monotonic(), data.plan
    order = {
        number: first
        + np.random.default_rng((data.config.seed, ORDER, epoch, number)).permutation(plan.examples[number])
        for number, first in data.files.items()
    }
    sums, seen = np.zeros(3), 0
    for step in progress(range(plan.steps), total=plan.steps, name=f"implicit_mf epoch {epoch}", rank=comm.rank):
        batch = local_batch(data, order, epoch, step)
        sums += take_step(comm, state, data, batch, step)
        seen += len(batch.user)
        if not np.isfinite(sums[0]):
            fix = "lower implicit_mf.learning_rate"
            raise UserError("training diverged", where=f"implicit_mf, epoch {epoch}", fix=fix)
    n = sum(plan.examples)
    if (all_seen := int(comm.allreduce_sum(torch.tensor([seen]))[0])) != n:
        raise InvariantError(f"epoch {epoch} saw {all_seen} pairs, there are {n}")
    return {
        "epoch": epoch,
        "loss": float(sums[0] / max(sums[1], 1e-12)),
        "examples": n,
        "steps": plan.steps,
        "without": int(sums[2]),
        "seconds": round(time.monotonic() - began, 3),
    }


def local_batch(data: Material, order: dict[int, np.ndarray], epoch: int, step: int) -> Examples:
    """This rank's examples of a step: its files' slices, and its part of what is drawn for all ranks'."""
    plan, config = data.plan, data.config
    slices = [plan.slice(number, step) for number in range(len(plan.examples))]
    ends = np.cumsum([part.stop - part.start for part in slices])
    nothing = np.zeros(0, np.int64)
    rows = np.concatenate([nothing, *(order[number][slices[number]] for number in order)])
    places = np.concatenate(
        [nothing, *(np.arange(ends[n] - (slices[n].stop - slices[n].start), ends[n]) for n in order)]
    )
    m = config.tries if config.loss == "warp" else config.n_negatives
    user = data.pairs.user[rows]
    drawn, there = np.zeros((len(rows), m), np.int64), np.zeros((len(rows), m), bool)
    for turn in range(ROUNDS):
        seed = np.random.SeedSequence((config.seed, DRAWS, epoch, step, turn)).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(seed) >> 1)
        found = data.sampler.draw((int(ends[-1]), m), generator).numpy()[places]
        drawn = np.where(there, drawn, found)
        there = ~_among(data.taken, user[:, None] * data.n_items + drawn)
        if there.all():
            break
    else:
        draws = np.random.default_rng((config.seed, DRAWS, epoch, step, ROUNDS)).random((int(ends[-1]), m))[places]
        for row in np.flatnonzero(~there.all(axis=1)):
            missing, others = ~there[row], data.others(int(user[row]))
            if len(others):
                drawn[row, missing] = others[(draws[row, missing] * len(others)).astype(np.int64)]
                there[row] = True
    tensors = (torch.from_numpy(one) for one in (user, data.pairs.item[rows], data.pairs.weight[rows], drawn, there))
    return Examples(*tensors)


def _among(ascending: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which of the numbers are in an ascending array."""
    if not len(ascending):
        return np.zeros(wanted.shape, bool)
    found: np.ndarray = ascending[np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)] == wanted
    return found


def take_step(comm: Comm, state: State, data: Material, batch: Examples, step: int) -> np.ndarray:
    """Moves the factors by the summed gradient of the step's examples of all ranks.

    Returns:
        float64 [3], of all ranks: the sum of the losses, of the weights, and the pairs against which nothing was drawn.
    """
    config, device, n_users = data.config, state.table.device, len(data.user_count)
    batch = Examples(*(one.to(device) for one in batch[:-1]))
    without = (~batch.there.any(1)).sum().float()
    if config.loss == "warp":
        batch = violated(state.table, data, batch)
    rows = torch.cat([batch.user[:, None], n_users + batch.item[:, None], n_users + batch.drawn], dim=1)
    touched = touched_rows(comm, rows, data.plan.width(comm.size, step))
    place = torch.searchsorted(touched, rows)
    block = state.table.index_select(0, touched)
    gradient, loss = gradients(block, place, batch, config)
    gradient[: int(torch.searchsorted(touched, n_users)) if config.bias else None, -1] = 0  # what is no bias
    sums = torch.stack([loss, batch.weight.sum(), without])
    sent = comm.allreduce_sum(torch.cat([gradient.flatten(), sums]))
    total = sent[-3:].double().cpu().numpy()
    squares = state.squares.index_select(0, touched)
    adagrad_(block, squares, sent[:-3].view_as(block), config.learning_rate)
    state.table.index_copy_(0, touched, block)
    state.squares.index_copy_(0, touched, squares)
    return np.asarray(total)


def violated(table: Tensor, data: Material, batch: Examples) -> Examples:
    """warp: the pairs with the first item drawn that is scored too high, weighed by the rank that this tells."""
    n_users = len(data.user_count)
    user, taken = table[batch.user], table[n_users + batch.item]
    scores = torch.bmm(table[n_users + batch.drawn], user[:, :, None])[:, :, 0]
    first, tried = first_violation((user * taken).sum(1), scores, batch.there, data.config.margin)
    drawn = batch.drawn.gather(1, first[:, None])
    return batch._replace(drawn=drawn, there=(tried > 0)[:, None], factor=rank_weight(tried, data.n_known))


def gradients(block: Tensor, place: Tensor, batch: Examples, config: ImplicitMfConfig) -> tuple[Tensor, Tensor]:
    """The gradient of the summed loss with its penalty, like ``block``, and the summed loss without the penalty.

    Args:
        block: float32 [rows, dim + 1]: rows of the table.
        place: int64 [n, 2 + m]: of the user, the item taken and the items drawn in the block.
        batch: The examples.
        config: Of the model.
    """
    found = block[place]
    user, taken, others = found[:, 0], found[:, 1], found[:, 2:]
    of_taken = (user * taken).sum(1).requires_grad_()
    of_others = torch.bmm(others, user[:, :, None])[:, :, 0].requires_grad_()
    weight = batch.weight if batch.factor is None else batch.weight * batch.factor
    loss = (losses(config.loss, of_taken, of_others, batch.there, config.margin) * weight).sum()
    by_taken, by_others = torch.autograd.grad(loss, (of_taken, of_others))
    each = torch.empty_like(found)
    each[:, 0] = by_taken[:, None] * taken + torch.bmm(by_others[:, None], others)[:, 0]
    each[:, 1] = by_taken[:, None] * user
    each[:, 2:] = by_others[:, :, None] * user[:, None]
    if config.reg:
        shares = batch.there * (batch.weight / batch.there.sum(1).clamp(min=1))[:, None]
        each += config.reg * torch.cat([shares.sum(1, keepdim=True).expand(-1, 2), shares], dim=1)[:, :, None] * found
    gradient = torch.zeros_like(block).index_add_(0, place.flatten(), each.flatten(0, 1))
    return gradient, loss.detach()


def save(task: MfTask, state: State, data: Material, history: list[dict[str, Any]]) -> None:
    """Writes the model to serve; users and items without a pair are 0."""
    table = state.table.cpu()
    known = [torch.from_numpy(count > 0) for count in (data.user_count, data.item_count)]
    sides = table[: task.n_users], table[task.n_users :]
    users, items = (rows * there[:, None] for rows, there in zip(sides, known, strict=True))
    weights = {"users": users[:, :-1], "items": items[:, :-1], "item_bias": items[:, -1]}
    described = {**task.meta, "config": dataclasses.asdict(task.config), "history": history, "n_items": task.n_items}
    checkpoint.save_model(task.model_path, weights, described)
