"""Training content2vec on a snapshot of sequences, beside which the items' vectors lie, and on a prod2vec model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sparkrec.errors import InvariantError, UserError
from sparkrec.log import log_event, progress
from sparkrec.models.content2vec.network import HIDDEN_SHARE, Content2Vec, Content2VecShape, new_content2vec
from sparkrec.models.content2vec.settings import Content2VecConfig
from sparkrec.models.prod2vec.feed import (
    chunks_of_steps,
    nothing_to_learn,
    pairs_of_steps,
    plan_pairs,
    read_walks,
)
from sparkrec.models.prod2vec.skipgram import Batch, gradients
from sparkrec.models.prod2vec.step import Group, Negatives, draw_negatives, numbered
from sparkrec.models.two_tower.step import adagrad_
from sparkrec.ranks import checkpoint
from sparkrec.ranks.comm import Comm
from sparkrec.ranks.epochs import History, run_epochs
from sparkrec.ranks.feed import item_counts
from sparkrec.ranks.item_vectors import describe, read_item_vectors
from sparkrec.ranks.launch import pick_device
from sparkrec.ranks.snapshot import Manifest, read_manifest
from sparkrec.settings.config import config_hash
from sparkrec.settings.sections import TrainConfig

NS_EXPONENT = 0.75  # negatives are drawn by count ** NS_EXPONENT, as prod2vec's by default
_SERVED_AT_ONCE = 65_536  # items


@dataclass(frozen=True)
class Items:
    """What is known of the items: unit vectors, 0 where an item has none."""

    content: tuple[Tensor, ...]  # float32 [n_items, width] of each modality
    behaviour: Tensor  # float32 [n_items, width], of prod2vec

    def of(self, rows: Tensor, hidden: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """The inputs of the model for some items int64 [n], of which ``hidden`` bool [n] go without prod2vec."""
        behaviour = self.behaviour[rows]
        if hidden is not None:
            behaviour = behaviour.masked_fill(hidden[:, None], 0.0)
        return [part[rows] for part in self.content], behaviour


@dataclass(frozen=True)
class State:
    """The weights and Adagrad's sums, changed in place."""

    model: Content2Vec
    squares: list[Tensor]

    @classmethod
    def new(cls, shape: Content2VecShape, seed: int) -> State:
        """The state before the first step."""
        model = new_content2vec(shape, seed)
        return cls(model, [torch.zeros_like(p) for p in model.parameters()])

    def tensors(self) -> dict[str, Tensor]:
        """All state by name, for a checkpoint."""
        named = {f"dense.{name}": p.detach() for name, p in self.model.named_parameters()}
        return named | {f"squares.{n}": squares for n, squares in enumerate(self.squares)}

    def to(self, device: torch.device) -> State:
        """The state on a device."""
        return State(self.model.to(device), [squares.to(device) for squares in self.squares])


@dataclass(frozen=True)
class Trainer:
    """What the steps need besides the state."""

    config: Content2VecConfig
    items: Items
    group: Group


def train(
    comm: Comm,
    snapshot_path: str,
    model_path: str,
    config: Content2VecConfig,
    train_config: TrainConfig,
    n_items: int,
    meta: dict[str, Any],
    prod2vec_path: str,
    names: Sequence[str],
) -> list[dict[str, Any]]:
    """Trains on a snapshot and writes the model; goes on from the last checkpoint of the same run.

    Args:
        comm: The ranks.
        snapshot_path: A snapshot of ``prod2vec.sequences.snapshot_rows``, with the items' vectors in its folder.
        model_path: The model's folder, reached by rank 0 at least.
        config: The model's settings.
        train_config: The ranks' settings.
        n_items: Size of the catalogue; items are 0 … n_items − 1.
        meta: JSON-able; kept in ``model.json``.
        prod2vec_path: The folder of a finished prod2vec model of the same items, reached by every rank.
        names: The item vectors to use, of ``write_item_vectors``.

    Returns:
        For each epoch: epoch, loss (mean of the pairs), pairs, events, steps, rows_seen, seconds, events_per_second.

    Raises:
        InvariantError: The rows read are not the snapshot's, an item is outside of the catalogue, or the prod2vec
            model is of another catalogue.
        UserError: There is no pair to train on, the loss is no longer finite; no usable snapshot, model or device.
    """
    manifest = read_manifest(snapshot_path)
    device = pick_device(comm, train_config)
    counts = item_counts(manifest, comm, n_items)
    if not manifest.rows:
        raise nothing_to_learn(manifest)
    content = read_item_vectors(snapshot_path, names, n_items)
    behaviour, begun = _prod2vec(prod2vec_path, n_items)
    parts = [asdict(f) for f in manifest.files]
    key = config_hash(config, manifest.inputs, n_items, parts, describe(content), begun)
    items = Items(tuple(part.to(device) for part in content.values()), behaviour.to(device))
    trainer = Trainer(config, items, Group.of(0, counts, NS_EXPONENT))
    state = State.new(shape_of(config, items), config.seed)
    history = checkpoint.resume(comm, model_path, key, state.tensors())
    state = state.to(device)

    def save(done: History) -> None:
        described: dict[str, Any] = {"config": asdict(config), "inputs": manifest.inputs, "history": done}
        described |= {"rows": manifest.rows, "sequences": manifest.groups, "meta": meta}
        described |= {"prod2vec": begun, "vectors": describe(content)}
        _save(model_path, state, items, counts, described)

    return run_epochs(
        comm, model_path, key, history, config.epochs,
        run_epoch=lambda epoch: _run_epoch(trainer, state, manifest, comm, epoch), tensors=state.tensors,
        save=save, name="content2vec",
    )  # fmt: skip


def shape_of(config: Content2VecConfig, items: Items) -> Content2VecShape:
    """The shape that the settings and the vectors give."""
    widths = tuple(part.shape[1] for part in items.content)
    residual = config.combine == "residual"
    hidden = tuple(config.hidden) if residual else ()
    return Content2VecShape(widths, items.behaviour.shape[1], config.dim if residual else 0, hidden)


def hidden_items(rows: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
    """bool, whose prod2vec vectors are hidden: a hash of item and seed, so that all ranks hide the same.

    Args:
        rows: int64, items.
        seed: Seed, epoch and step.
    """
    mixed = rows.astype(np.uint64) + np.random.SeedSequence(seed).generate_state(1, np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the finaliser of SplitMix64
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    hidden: np.ndarray = (mixed ^ (mixed >> np.uint64(31))) < np.uint64(int(HIDDEN_SHARE * 2**64))
    return hidden


def _prod2vec(path: str, n_items: int) -> tuple[Tensor, str]:
    """The unit vectors of a prod2vec model, and the hash of its weights."""
    weights, model = checkpoint.load_model(path)
    if "vectors" not in weights or len(weights["vectors"]) != n_items:
        raise InvariantError(f"{path} is no prod2vec model of {n_items} items")
    return F.normalize(weights["vectors"]), str(model[checkpoint.MODEL_HASH])


def _run_epoch(trainer: Trainer, state: State, manifest: Manifest, comm: Comm, epoch: int) -> dict[str, Any]:
    began, config = time.perf_counter(), trainer.config
    everything = np.ones(len(trainer.items.behaviour))
    walks = read_walks(manifest, comm, everything, config.window, config.seed, epoch)
    plan = plan_pairs(walks, manifest, comm, config.batch_size)
    draws = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    total, seen = 0.0, 0
    bar = iter(progress(range(plan.steps), total=plan.steps, name=f"content2vec epoch {epoch}", rank=comm.rank))
    for steps in chunks_of_steps(plan):
        negatives = draw_negatives([trainer.group], config.negatives, len(steps), draws)
        for k, pairs in enumerate(pairs_of_steps(walks, plan, steps)):
            step = next(bar)
            n = plan.rank_size(0, 1, step)  # of all ranks
            total += _step(trainer, state, pairs, negatives[k], n, (config.seed, epoch, step), comm)
            seen += len(pairs[0])
        if not np.isfinite(total):
            raise UserError("training diverged", where=f"content2vec, epoch {epoch}", fix="lower its learning_rate")
    next(bar, None)
    n_pairs = sum(plan.examples)
    if (seen := int(comm.allreduce_sum(torch.tensor([seen]))[0])) != n_pairs:
        raise InvariantError(f"{manifest.path}: {seen} pairs seen, expected {n_pairs}")
    seconds = time.perf_counter() - began
    return {
        "epoch": epoch,
        "loss": total / n_pairs,
        "pairs": n_pairs,
        "events": manifest.rows,
        "steps": plan.steps,
        "rows_seen": manifest.rows,
        "seconds": round(seconds, 3),
        "events_per_second": round(manifest.rows / seconds, 1),
    }


def _step(
    trainer: Trainer,
    state: State,
    pairs: tuple[np.ndarray, np.ndarray],
    negatives: Negatives,
    n_pairs: int,
    seed: tuple[int, ...],
    comm: Comm,
) -> float:
    """Moves the weights by the mean gradient of the ``n_pairs`` pairs of all ranks; gives their loss."""
    device = trainer.items.behaviour.device
    rows, _, *targets = numbered(*pairs, negatives.row)
    centres, place_in = numbered(pairs[0])
    hidden = torch.from_numpy(hidden_items(rows.numpy(), seed)).to(device)
    left, right = state.model.sides(state.model(*trainer.items.of(rows.to(device), hidden)))
    left = left[torch.searchsorted(rows, centres).to(device)]
    place_in, place_out, place_negative = (place.to(device) for place in (place_in, *targets))
    share = torch.from_numpy(negatives.share).to(device)
    batch = Batch(place_in, place_out, None, None, place_negative, share)
    with torch.no_grad():
        loss, *slopes = gradients(left.detach(), right.detach(), batch)
    torch.autograd.backward([left, right], slopes)
    return _update(state, comm, trainer.config.learning_rate, loss, n_pairs)


def _update(state: State, comm: Comm, rate: float, loss: Tensor, n_pairs: int) -> float:
    """Sums the loss and the gradients of all ranks in one message, and takes a step of Adagrad; gives the loss."""
    parameters = list(state.model.parameters())
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    sent = comm.allreduce_sum(torch.cat([*(part.flatten() for part in parts), loss.view(1)]))
    *sums, total = sent.split([*(p.numel() for p in parameters), 1])
    with torch.no_grad():
        for parameter, squares, gradient in zip(parameters, state.squares, sums, strict=True):
            adagrad_(parameter, squares, gradient.view_as(parameter) / n_pairs, rate)
            parameter.grad = None
    return float(total)


@torch.no_grad()
def item_vectors(model: Content2Vec, items: Items) -> Tensor:
    """The vectors to serve, float32 [n_items, width] of length 1, 0 for an item that has nothing."""
    every = torch.arange(len(items.behaviour), device=items.behaviour.device)
    return torch.cat([model(*items.of(rows)) for rows in every.split(_SERVED_AT_ONCE)])


def _save(path: str, state: State, items: Items, counts: Tensor, described: dict[str, Any]) -> None:
    """Writes the model: the vectors, counts int64 [n_items], and the weights that made them."""
    vectors = item_vectors(state.model, items).cpu()
    there, known = (vectors != 0).any(1), (items.behaviour != 0).any(1).cpu()
    found = {"learnt": int(known.sum()), "by_content": int((there & ~known).sum()), "without": int((~there).sum())}
    log_event("content2vec_items", **found)
    weights = {"vectors": vectors, "counts": counts}
    weights |= {f"dense.{name}": p.detach() for name, p in state.model.named_parameters()}
    model = {"model": "content2vec", "n_items": len(counts), "items": found, **described}
    checkpoint.save_model(path, weights, model)
