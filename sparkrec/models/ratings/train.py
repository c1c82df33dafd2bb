"""Training of predicted ratings: the run that every rank takes part in; knows neither Spark nor the tables.

A step takes a slice of every file of the snapshot, drawn by seed, epoch and file alone, and the ranks sum up their
gradients: the model does not depend on how many they are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparkrec.errors import InvariantError, NothingToTrain, UserError
from sparkrec.log import progress
from sparkrec.models.prod2vec.embeddings import unit_vectors
from sparkrec.models.ratings.biases import Biases, Known, Ratings, fit_biases
from sparkrec.models.ratings.loss import expected, summed_loss
from sparkrec.models.ratings.network import RatingNetwork, RatingShape, code_rows, new_network, new_table
from sparkrec.models.ratings.posterior import langevin
from sparkrec.models.ratings.reviews import POSITION, WORD, Reviews, largest, padded_words
from sparkrec.models.ratings.settings import RatingsConfig
from sparkrec.models.two_tower.batches import Plan
from sparkrec.models.two_tower.network import Feature
from sparkrec.models.two_tower.step import adagrad_
from sparkrec.ranks import checkpoint
from sparkrec.ranks.comm import Comm, touched_rows
from sparkrec.ranks.epochs import run_epochs
from sparkrec.ranks.feed import check_total, read_files
from sparkrec.ranks.launch import pick_device
from sparkrec.ranks.snapshot import Manifest, read_manifest
from sparkrec.settings.config import config_hash
from sparkrec.settings.sections import TrainConfig
from sparkrec.warehouse.tables import ITEM_IDX, RATING, USER_IDX

ORDER, DRAWS, NOISE = range(3)  # of the seeds
_REVIEWS_AT_ONCE = 4096


@dataclass(frozen=True)
class RatingTask:
    """All that decides on a training run."""

    snapshot_path: str
    model_path: str
    config: RatingsConfig
    train: TrainConfig
    n_users: int
    n_items: int
    user_features: tuple[Feature, ...]
    item_features: tuple[Feature, ...]
    user_codes: np.ndarray  # int32 [n_users, widths]
    item_codes: np.ndarray  # int32 [n_items, widths]
    meta: dict[str, Any]  # JSON-able, into model.json
    words_path: str | None = None  # snapshot of the words of the reviews
    vocabulary: int = 0
    item_vectors_path: str | None = None  # folder of a prod2vec model of the same items

    def key(self, vectors: str) -> str:
        """Hash of what a checkpoint must agree in to be resumed; the number of ranks does not count."""
        inputs = [read_manifest(path).inputs for path in (self.snapshot_path, self.words_path) if path]
        codes = [
            hashlib.sha256(np.ascontiguousarray(one).tobytes()).hexdigest()
            for one in (self.user_codes, self.item_codes)
        ]
        features = [dataclasses.asdict(f) for f in (*self.user_features, *self.item_features)]
        return config_hash(self.config, inputs, codes, features, self.n_users, self.n_items, self.vocabulary, vectors)


@dataclass(frozen=True)
class State:
    """Weights and Adagrad's sums, changed in place."""

    table: Tensor  # float32 [n_rows, width]
    squares: Tensor
    network: RatingNetwork
    dense_squares: list[Tensor]
    vectors: Tensor  # float32 [n_items, item_vectors], unit length; of width 0 where there are none
    vector_squares: Tensor
    samples: Tensor  # float32 [samples, n_rows, width] of the table; of none where no posterior is asked for

    @classmethod
    def new(cls, data: Material, vectors: Tensor) -> State:
        """The state before the first step; ``vectors`` are the items'."""
        shape, config = data.shape, data.config
        table = new_table(shape, config.seed, data.level if config.nonnegative else None)
        network = new_network(shape, config.seed)
        dense = [torch.zeros_like(p) for p in network.parameters()]
        samples = torch.zeros(config.samples if config.posterior == "sgld" else 0, *table.shape)
        return cls(table, torch.zeros_like(table), network, dense, vectors, torch.zeros_like(vectors), samples)

    def to(self, device: torch.device) -> State:
        """The state on a device."""
        dense = [squares.to(device) for squares in self.dense_squares]
        rest = [tensor.to(device) for tensor in (self.vectors, self.vector_squares, self.samples)]
        return State(self.table.to(device), self.squares.to(device), self.network.to(device), dense, *rest)

    def tensors(self) -> dict[str, Tensor]:
        """All state by name, for a checkpoint."""
        named = {"table": self.table, "table.squares": self.squares}
        named |= {"vectors": self.vectors, "vectors.squares": self.vector_squares}
        named |= {"samples": self.samples} if len(self.samples) else {}
        for (name, weight), squares in zip(self.network.named_parameters(), self.dense_squares, strict=True):
            named |= {f"dense.{name}": weight.detach(), f"dense.{name}.squares": squares}
        return named


@dataclass(frozen=True)
class Material:
    """What a rank trains on."""

    shape: RatingShape
    config: RatingsConfig
    files: dict[int, Ratings]  # this rank's
    plan: Plan
    biases: Biases
    scale: float  # deviation of what the biases leave
    user_codes: Tensor  # int64 [n_users, w], rows of the table
    item_codes: Tensor  # int64 [n_items, w]
    reviews: Reviews | None
    tuned: bool  # whether the items' vectors learn
    level: float  # mean of what products of embeddings are to be


class Examples(NamedTuple):
    """Examples of one rank in one step; n of them."""

    user: np.ndarray  # int64 [n]
    item: np.ndarray  # int64 [n]
    rating: np.ndarray  # float64 [n]
    known: Known  # 0 where hidden
    new_user: np.ndarray  # bool [n], seen as new
    new_item: np.ndarray  # bool [n]
    keep: np.ndarray  # float32 [n, dropped]
    of_user: np.ndarray  # int64 [n, r], reviews; r is 0 without text
    of_item: np.ndarray  # int64 [n, r]


def train(comm: Comm, task: RatingTask) -> list[dict[str, Any]]:
    """Trains on a snapshot of ratings; every rank calls it. A finished epoch is kept as a checkpoint.

    Returns:
        For each epoch: epoch, loss (mean over all examples), examples, steps, seconds.

    Raises:
        NothingToTrain: There is no rating.
        UserError: The loss is no longer finite; no usable snapshot, model or device.
        InvariantError: The rows read are not the snapshot's.
    """
    manifest, config = read_manifest(task.snapshot_path), task.config
    device = pick_device(comm, task.train)
    vectors, begun = item_vectors(task)
    if not manifest.rows:
        raise NothingToTrain("no ratings to learn from", where=manifest.path, fix="a log whose format declares value")
    reviews = read_reviews(task) if config.network == "text" else None
    files = read_ratings(comm, manifest)
    data = prepare(comm, task, files, [one.rows for one in manifest.files], vectors.shape[1], reviews)
    state = State.new(data, vectors)
    key = task.key(begun) if comm.rank == 0 else ""
    history = checkpoint.resume(comm, task.model_path, key, state.tensors())
    state = state.to(device)
    return run_epochs(
        comm, task.model_path, key, history, config.passes,
        run_epoch=lambda epoch: run_epoch(comm, state, data, epoch), tensors=state.tensors,
        save=lambda done: save(task, state, data, done), name="ratings",
    )  # fmt: skip


def shape_of(task: RatingTask, item_vectors: int) -> RatingShape:
    """The shape that the settings and the inputs give."""
    config, text = task.config, task.config.network == "text"
    return RatingShape(
        network=config.network,
        n_users=task.n_users,
        n_items=task.n_items,
        dim=config.dim,
        hidden=tuple(config.hidden),
        cross_layers=config.cross_layers,
        statistics=config.statistics,
        dropout=config.dropout,
        user_features=task.user_features,
        item_features=task.item_features,
        item_vectors=item_vectors,
        vocabulary=task.vocabulary if text else 0,
        word_dim=config.word_dim,
        filters=config.filters,
        filter_widths=tuple(config.filter_widths),
        k_max=config.k_max,
    )


def item_vectors(task: RatingTask) -> tuple[Tensor, str]:
    """Unit vectors float32 [n_items, width] of the night's prod2vec, 0 for an item without one; the weights' hash."""
    if task.item_vectors_path is None:
        return torch.zeros(task.n_items, 0), ""
    return unit_vectors(task.item_vectors_path, task.n_items)


def read_ratings(comm: Comm, manifest: Manifest) -> dict[int, Ratings]:
    """This rank's files of a snapshot of rated pairs; the rows are held to the manifest."""
    found = read_files(manifest, comm.rank, comm.size, [USER_IDX, ITEM_IDX, RATING])
    files = {
        number: Ratings(
            columns[USER_IDX].astype(np.int64), columns[ITEM_IDX].astype(np.int64), columns[RATING].astype(np.float64)
        )
        for number, columns in found.items()
    }
    check_total(manifest, sum(len(one.user) for one in files.values()), comm)
    return files


def prepare(
    comm: Comm,
    task: RatingTask,
    files: dict[int, Ratings],
    n_ratings: list[int],
    item_vectors: int = 0,
    reviews: Reviews | None = None,
) -> Material:
    """Counts over all ranks what the steps need to know.

    Args:
        comm: The ranks.
        task: What is to be trained.
        files: This rank's ratings.
        n_ratings: How many each file has, of all ranks.
        item_vectors: Width of the items' vectors.
        reviews: Those that may be read; None: no text.
    """
    biases = fit_biases(list(files.values()), task.n_users, task.n_items, comm)
    mean = biases.mean
    if task.config.nonnegative and not task.config.biases:
        biases = dataclasses.replace(biases, mean=biases.low)  # what products of at least 0 can be added to
    left = [(one.rating - expected(biases, biases.without_own(one), task.config)) ** 2 for one in files.values()]
    squares = float(comm.allreduce_sum(torch.tensor([sum(float(part.sum()) for part in left)], dtype=torch.float64))[0])
    shape, scale = shape_of(task, item_vectors), max((squares / sum(n_ratings)) ** 0.5, 1e-6)
    codes = [torch.from_numpy(one.astype(np.int64)) for one in (task.user_codes, task.item_codes)]
    of_users, of_items = (task.user_features, task.item_features) if shape.layered else ((), ())
    return Material(
        shape=shape,
        config=task.config,
        files=files,
        plan=Plan.of(n_ratings, task.config.batch_size),
        biases=biases,
        scale=scale,
        user_codes=code_rows(shape, codes[0], of_users, 0),
        item_codes=code_rows(shape, codes[1], of_items, len(of_users)),
        reviews=reviews,
        tuned=task.config.tuned and item_vectors > 0,
        level=(mean - biases.mean) / scale,
    )


def read_reviews(task: RatingTask) -> Reviews:
    """The words of all reviews: every rank needs those of any item."""
    manifest = read_manifest(task.words_path or "")
    found = list(read_files(manifest, 0, 1, [USER_IDX, ITEM_IDX, POSITION, WORD]).values())
    user, item, position, word = (
        np.concatenate([one[name] for one in found]).astype(np.int64) for name in (USER_IDX, ITEM_IDX, POSITION, WORD)
    )
    pairs, words = padded_words(user * task.n_items + item, position, word, task.config.words)
    return Reviews.of(pairs // task.n_items, pairs % task.n_items, words, task.n_users, task.n_items)


def examples_of(data: Material, number: int, rows: np.ndarray, seed: tuple[int, ...]) -> Examples:
    """Some ratings of a file as examples; what is drawn depends on the seed alone."""
    rng, of = np.random.default_rng(seed), Ratings(*(column[rows] for column in data.files[number]))
    config, n = data.config, len(rows)
    known, hide = data.biases.without_own(of), config.hide if data.shape.layered else 0.0
    new_user, new_item = rng.random(n) < hide, rng.random(n) < hide
    known = Known(
        np.where(new_user, 0, known.user_bias), np.where(new_item, 0, known.item_bias),
        np.where(new_user, 0, known.user_count), np.where(new_item, 0, known.item_count),
    )  # fmt: skip
    rate = data.shape.dropout
    keep = rng.random((n, data.shape.dropped), dtype=np.float32) >= rate
    nothing = np.zeros((n, 0), dtype=np.int64)
    of_user, of_item = nothing, nothing
    if data.reviews is not None:
        own = data.reviews.own(of.user, of.item)
        of_user = data.reviews.users.draw(of.user, own, rng, config.reviews)
        of_item = data.reviews.items.draw(of.item, own, rng, config.reviews)
        of_user[new_user], of_item[new_item] = -1, -1
    kept = (keep / (1.0 - rate)).astype(np.float32)
    return Examples(of.user, of.item, of.rating, known, new_user, new_item, kept, of_user, of_item)


def local_batch(data: Material, order: dict[int, np.ndarray], epoch: int, step: int) -> Examples:
    """This rank's examples of a step: its files' slices."""
    parts = [
        examples_of(data, number, rows[data.plan.slice(number, step)], (data.config.seed, DRAWS, epoch, step, number))
        for number, rows in order.items()
    ]
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in Examples._fields if name != "known"
    }
    known = {name: np.concatenate([getattr(part.known, name) for part in parts]) for name in Known._fields}
    return Examples(**joined, known=Known(**known))


def run_epoch(comm: Comm, state: State, data: Material, epoch: int) -> dict[str, Any]:
    """One pass over all ratings; see ``train``."""
    began, config, plan = time.monotonic(), data.config, data.plan
    order = {
        number: np.random.default_rng((config.seed, ORDER, epoch, number)).permutation(len(one.user))
        for number, one in data.files.items()
    }
    total, seen = 0.0, 0
    state.network.train()
    for step in progress(range(plan.steps), total=plan.steps, name=f"ratings epoch {epoch}", rank=comm.rank):
        batch = local_batch(data, order, epoch, step)
        done = (epoch - 1 + step / plan.steps) / config.epochs
        if epoch > config.epochs:
            total += sample_step(comm, state, data, batch, epoch, step)
        else:
            total += take_step(comm, state, data, batch, step, config.learning_rate * (1.0 - done))
        seen += len(batch.user)
        if not np.isfinite(total):
            raise UserError("training diverged", where=f"ratings, epoch {epoch}", fix="lower ratings.learning_rate")
    if (number := epoch - config.epochs - config.burn_in) > 0:
        state.samples[number - 1] = state.table
    n = sum(plan.examples)
    if (all_seen := int(comm.allreduce_sum(torch.tensor([seen]))[0])) != n:
        raise InvariantError(f"epoch {epoch} saw {all_seen} ratings, there are {n}")
    seconds = round(time.monotonic() - began, 3)
    return {"epoch": epoch, "loss": total / n, "examples": n, "steps": plan.steps, "seconds": seconds}


def take_step(comm: Comm, state: State, data: Material, batch: Examples, step: int, rate: float) -> float:
    """Moves the weights by the mean gradient of the step's examples of all ranks; gives their summed loss."""
    shape, config, device = data.shape, data.config, state.table.device
    user, item = torch.from_numpy(batch.user), torch.from_numpy(batch.item)
    user_rows = torch.where(torch.from_numpy(batch.new_user), -1, user)
    item_rows = torch.where(torch.from_numpy(batch.new_item), -1, item + shape.n_users)
    codes = torch.cat([data.user_codes[user], data.item_codes[item]], dim=1)
    rows = torch.cat([user_rows[:, None], item_rows[:, None], codes], dim=1)
    touched = touched_rows(comm, rows, data.plan.width(comm.size, step))
    place = torch.where(rows >= 0, torch.searchsorted(touched, rows), -1).to(device)
    block = state.table[touched.to(device)].requires_grad_()
    vectors = state.vectors[item.to(device)].requires_grad_(data.tuned) if shape.item_vectors else None
    loss = summed_loss(state.network, block, place, vectors, data, batch)
    loss.backward()
    dense = list(state.network.parameters())
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in (block, *dense)]
    if data.tuned and vectors is not None:
        of_items = torch.zeros_like(state.vectors)
        parts.append(of_items.index_add_(0, item.to(device), vectors.grad if vectors.grad is not None else vectors * 0))
    sent = comm.allreduce_sum(torch.cat([*(part.flatten() for part in parts), loss.detach().view(1)]))
    *sums, total = sent.split([*(part.numel() for part in parts), 1])
    share = 1.0 / sum(data.plan.slice(lane, step).stop - data.plan.slice(lane, step).start for lane in _lanes(data))
    at = touched.to(device)
    moved, squares = block.detach(), state.squares[at]
    adagrad_(moved, squares, sums[0].view_as(moved) * share, rate)
    state.table[at] = moved.clamp_(min=0) if config.nonnegative else moved
    state.squares[at] = squares
    with torch.no_grad():
        for parameter, kept, gradient in zip(dense, state.dense_squares, sums[1 : 1 + len(dense)], strict=True):
            adagrad_(parameter, kept, gradient.view_as(parameter) * share, rate)
            parameter.grad = None
        if data.tuned:
            adagrad_(state.vectors, state.vector_squares, sums[-1].view_as(state.vectors) * share, rate)
    return float(total)


def sample_step(comm: Comm, state: State, data: Material, batch: Examples, epoch: int, step: int) -> float:
    """Moves the factors by a step of Langevin dynamics on the examples of all ranks; gives their summed loss."""
    shape, device = data.shape, state.table.device
    rows = torch.from_numpy(np.stack([batch.user, batch.item + shape.n_users], axis=1))
    touched = touched_rows(comm, rows, data.plan.width(comm.size, step))
    place = torch.searchsorted(touched, rows)
    block = state.table[touched.to(device)].requires_grad_()
    loss = summed_loss(state.network, block, place.to(device), None, data, batch)
    (gradient,) = torch.autograd.grad(loss, block)
    seen = torch.bincount(place.flatten(), minlength=len(touched)).to(gradient)
    sent = comm.allreduce_sum(torch.cat([gradient.flatten(), seen, loss.detach().view(1)]))
    gradient, seen, total = sent.split([gradient.numel(), len(touched), 1])
    count = np.concatenate([data.biases.user_count, data.biases.item_count])[touched.numpy()]
    seed = np.random.SeedSequence((data.config.seed, NOISE, epoch, step)).generate_state(1, np.uint64)[0]
    noise = torch.randn(block.shape, generator=torch.Generator().manual_seed(int(seed) >> 1))
    state.table[touched.to(device)] = langevin(
        block.detach(),
        gradient.view_as(block),
        (touched < shape.n_users).to(device),
        seen,
        torch.from_numpy(count).to(gradient),
        data.config,
        noise.to(device),
    )
    return float(total)


def _lanes(data: Material) -> range:
    return range(len(data.plan.examples))


def save(task: RatingTask, state: State, data: Material, history: list[dict[str, Any]]) -> None:
    """Writes the model to serve; rows that no gradient has reached are 0: they know nothing."""
    biases, shape, network = data.biases, data.shape, state.network.cpu().eval()
    reached = state.squares.sum(1, keepdim=True) > 0
    weights = {"table": (state.table * reached).cpu()}
    weights |= {"samples": (state.samples * reached).cpu()} if len(state.samples) else {}
    weights |= {f"dense.{name}": p.detach() for name, p in network.named_parameters()}
    weights |= {
        "user_bias": torch.from_numpy(biases.user.astype(np.float32)),
        "item_bias": torch.from_numpy(biases.item.astype(np.float32)),
        "user_count": torch.from_numpy(biases.user_count),
        "item_count": torch.from_numpy(biases.item_count),
        "user_codes": data.user_codes,
        "item_codes": data.item_codes,
        "item_vectors": state.vectors.cpu(),
    }
    if data.reviews is not None:
        values = np.concatenate(list(_review_values(network, data.reviews)))
        sides = (("user", data.reviews.users, data.reviews.item), ("item", data.reviews.items, data.reviews.user))
        for name, side, other in sides:
            found = largest(values, side, other)
            weights |= {f"{name}_text.{k}": torch.from_numpy(array) for k, array in found._asdict().items()}
    described = {
        **task.meta,
        "config": dataclasses.asdict(task.config),
        "shape": dataclasses.asdict(shape),
        "history": history,
        "mean": biases.mean,
        "ends": [biases.low, biases.high],
        "shrunk": list(biases.shrunk),
        "scale": data.scale,
        "n_items": task.n_items,
    }
    checkpoint.save_model(task.model_path, weights, described)


@torch.no_grad()
def _review_values(network: RatingNetwork, reviews: Reviews) -> Iterator[np.ndarray]:
    for low in range(0, len(reviews.words), _REVIEWS_AT_ONCE):
        words = torch.from_numpy(reviews.words[low : low + _REVIEWS_AT_ONCE].astype(np.int64))
        yield network.reviews(words).numpy()
