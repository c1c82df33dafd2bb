"""Training the session-parallel GRU on a snapshot: epochs over the lanes, checkpoints, the finished model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparkrec.errors import InvariantError, NothingToTrain, UserError
from sparkrec.log import log_event, progress
from sparkrec.models.gru.ahead import on_device
from sparkrec.models.gru.choice import VECTORS, build_network, by_user
from sparkrec.models.gru.fused import FusedSteps, fusible, load
from sparkrec.models.gru.lanes import Chunk, LaneTable, chunks, lane_table, lanes_of_files, walk_lanes
from sparkrec.models.gru.protocol import Network, init_parameters, to_tensors
from sparkrec.models.gru.recorded import GraphedSteps, graphable
from sparkrec.models.gru.settings import GruConfig
from sparkrec.models.gru.step import GruState, Trainer, make_batch
from sparkrec.models.gru.warm_start import begin_with, continued
from sparkrec.ranks import checkpoint
from sparkrec.ranks.comm import Comm
from sparkrec.ranks.epochs import History, run_epochs
from sparkrec.ranks.feed import check_total, code_counts, item_counts, read_files
from sparkrec.ranks.item_vectors import describe, read_item_vectors
from sparkrec.ranks.launch import pick_device
from sparkrec.ranks.snapshot import Manifest, SnapshotRows, read_manifest
from sparkrec.settings.config import config_hash
from sparkrec.settings.sections import TrainConfig
from sparkrec.warehouse.tables import EVENT_TYPES, ITEMS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Steps = Callable[[Chunk, torch.Tensor, torch.Generator], Iterator[Any]]  # of a chunk, each with its loss
TYPE = "event_type"  # column of a snapshot: the code of the event's type
_CHUNK_IDS = 2_000_000  # ids of a chunk: drawn and gathered at once


def snapshot_rows(sessions: DataFrame, config: GruConfig) -> SnapshotRows:
    """Sessions as the flat rows that the GRU trains on.

    Args:
        sessions: Columns of ``tables.SESSIONS``.
        config: Says whether a lane walks single sessions or those of a user, in order of the first one.

    Returns:
        Rows: session bigint (a hash of session_id), start bigint (µs), position int, item int; with
        ``gru.event_types`` further event_type int, a code; for users further user bigint (user_idx, or a hash where
        the session has none and so is a user's only one) and first bigint (µs).
        A group takes a lane: write the snapshot with ``n_slots=gru.lanes``.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    columns = [F.xxhash64("session_id").alias("session"), F.unix_micros("start_ts").alias("start")]
    events = F.posexplode("items").alias("position", "item")
    order = ("start", "session", "position")
    if config.event_types:
        both = F.posexplode(F.arrays_zip(ITEMS, EVENT_TYPES)).alias("position", "event")
        rows = sessions.select(*columns, both)
        named = [F.col(f"event.{ITEMS}").alias("item"), F.col(f"event.{EVENT_TYPES}").alias(TYPE)]
        return SnapshotRows(rows.select("session", "start", "position", *named), "session", order)
    if not by_user(config):
        return SnapshotRows(sessions.select(*columns, events), "session", order)
    user = F.coalesce(F.col("user_idx").cast("bigint"), F.xxhash64("session_id")).alias("user")
    first = F.min("start").over(Window.partitionBy("user")).alias("first")
    rows = sessions.select(*columns, user, "items").select("session", "start", "user", first, events)
    return SnapshotRows(rows, "user", ("first", "user", "start", "session", "position"))


def train(
    comm: Comm,
    snapshot_path: str,
    model_path: str,
    config: GruConfig,
    train_config: TrainConfig,
    n_items: int,
    meta: dict[str, Any],
    warm_start_path: str | None = None,
    pretrained_path: str | None = None,
    event_types: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """Trains on a snapshot and writes the model; goes on from the last checkpoint of the same run.

    Args:
        comm: The ranks.
        snapshot_path: A snapshot of ``snapshot_rows``, with the vectors of ``gru.features`` in its folder.
        model_path: The model's folder, reached by rank 0 at least.
        config: The model's settings.
        train_config: The ranks' settings.
        n_items: Size of the catalogue; items are 0 … n_items − 1.
        meta: JSON-able; kept in ``model.json``.
        warm_start_path: Folder of an earlier model, of whose catalogue items this one's are a continuation: its
            weights are the initial ones, and items that it does not have get new rows.
        pretrained_path: Folder of a prod2vec model of the same items, whose vectors the embeddings begin with; rank 0
            reads it.
        event_types: With ``gru.event_types`` the code of each type of events, from 1.

    Returns:
        For each epoch: epoch, loss (mean of the events), events, steps, seconds, events_per_second, rows_seen.

    Raises:
        InvariantError: The rows read are not the snapshot's, an item is outside of the catalogue, or the earlier
            model's catalogue is larger than this one.
        UserError: The loss is no longer finite; no usable snapshot or device; the earlier model, or the vectors to
            begin with, have another shape.
    """
    manifest = read_manifest(snapshot_path)
    device = pick_device(comm, train_config)
    counts = item_counts(manifest, comm, n_items)
    n_sessions = _session_count(manifest, comm)
    vectors = read_item_vectors(snapshot_path, config.features, n_items)
    codes = dict(event_types or {})
    n_types = 1 + max(codes.values(), default=0)
    of_types = code_counts(manifest, comm, TYPE, n_types).tolist() if config.event_types else []
    there = {name: matrix.to(device) for name, matrix in vectors.items()}
    network = build_network(config, n_items, there, n_types)
    earlier = None  # hash of the weights to begin with; rank 0 alone keeps checkpoints and writes the model
    if warm_start_path and comm.rank == 0:
        earlier = checkpoint.read_model(warm_start_path)[checkpoint.MODEL_HASH]
    parts = [asdict(f) for f in manifest.files]
    begun: list[str] = []  # hash of the vectors to begin with, likewise
    if pretrained_path and comm.rank == 0:
        begun = [checkpoint.read_model(pretrained_path)[checkpoint.MODEL_HASH]]
    key = config_hash(config, manifest.inputs, n_items, parts, describe(vectors), earlier, *begun, *codes.items())
    state, history = _start(network, config, comm, model_path, key, warm_start_path, pretrained_path, codes)
    state = state.to(device).shared(comm)
    trainer = Trainer.create(network, config, counts.to(device))
    load(trainer, device, comm)
    if train_config.cuda_graphs and not graphable(trainer, state, comm):
        log_event("gru_not_recorded", network=config.network, device=str(device), ranks=comm.size, bptt=config.bptt)

    def save(done: History) -> None:
        weights = {**to_tensors(network, state.parameters()), "counts": counts}
        weights |= {VECTORS + name: matrix for name, matrix in vectors.items()}
        described = {"model": "gru", "config": asdict(config), "n_items": n_items, "inputs": manifest.inputs}
        described |= {"warm_start": earlier, "pretrained": "".join(begun), "vectors": describe(vectors)}
        described |= {"event_types": codes, "events_of_types": of_types} if codes else {}
        described |= {"history": done, "rows": manifest.rows, "sessions": n_sessions, "meta": meta}
        checkpoint.save_model(model_path, weights, described)

    graphs = train_config.cuda_graphs
    return run_epochs(
        comm, model_path, key, history, config.epochs,
        run_epoch=lambda epoch: _run_epoch(trainer, state, manifest, n_sessions, comm, epoch, graphs),
        tensors=state.tensors, save=save, name="gru",
    )  # fmt: skip


# ---- state -----------------------------------------------------------------------------------------------------------


def _start(
    network: Network,
    config: GruConfig,
    comm: Comm,
    path: str,
    key: str,
    warm_start_path: str | None,
    pretrained_path: str | None = None,
    event_types: Mapping[str, int] | None = None,
) -> tuple[GruState, list[dict[str, Any]]]:
    """The state and history of the newest checkpoint, or those of a beginning; rank 0 reads, all get the same."""
    found = checkpoint.load_checkpoint(path, key) if comm.rank == 0 else None
    if found is not None:
        state = GruState.of_tensors(found[1])
    elif warm_start_path and comm.rank == 0:
        state = GruState.new(continued(network, warm_start_path, config.seed, event_types))
    else:
        parameters = init_parameters(network, config.seed)
        if pretrained_path and comm.rank == 0:
            begin_with(network, parameters, pretrained_path)
        state = GruState.new(parameters)
    done = int(comm.broadcast(torch.tensor([found[0] if found else 0]))[0])
    if (done or warm_start_path or pretrained_path) and comm.size > 1:
        state = state.broadcast(comm)
    history = found[2]["history"] if found else [{"epoch": e} for e in range(1, done + 1)]
    return state, history


def _session_count(manifest: Manifest, comm: Comm) -> int:
    """The sessions of the snapshot; a group is one, or a user who has several."""
    sessions = manifest.groups
    if manifest.group != "session":
        parts = read_files(manifest, comm.rank, comm.size, ["position"])
        here = sum(int((columns["position"] == 0).sum()) for columns in parts.values())
        sessions = int(comm.allreduce_sum(torch.tensor([here]))[0])
    if sessions == manifest.rows:
        raise NothingToTrain("no pair of events to train on", where=manifest.path, fix="more events, or a larger gap")
    return sessions


# ---- epochs ----------------------------------------------------------------------------------------------------------


def _run_epoch(
    trainer: Trainer, state: GruState, manifest: Manifest, n_sessions: int, comm: Comm, epoch: int, graphs: bool
) -> dict[str, Any]:
    began = time.perf_counter()
    table = _read_lanes(manifest, trainer.config, epoch, comm)
    device = state.flat.device
    seed = trainer.config.seed * 1_000_003 + epoch
    draws, drops = (torch.Generator(device).manual_seed(2 * seed + i) for i in range(2))
    run = _steps(trainer, state, table, comm, epoch, graphs)
    steps_per_chunk = max(1, _CHUNK_IDS // max(1, trainer.config.n_sample + len(table.order)))
    total, events = torch.zeros((), dtype=torch.float64, device=device), 0
    steps = iter(progress(range(table.length), total=table.length, name=f"gru epoch {epoch}", rank=comm.rank))
    for chunk in on_device(chunks(table, steps_per_chunk, comm, trainer.config.bptt - 1), device):
        samples = trainer.sampler.draw((len(chunk.target), trainer.config.n_sample), draws)
        for loss, n_valid, _ in zip(run(chunk, samples, drops), chunk.n_valid, steps, strict=False):
            total += loss
            events += n_valid
        if not torch.isfinite(total):
            raise UserError("training diverged", where=f"gru, epoch {epoch}", fix="lower gru.learning_rate")
    next(steps, None)
    next(steps, None)
    state.settle()
    seconds = time.perf_counter() - began
    if events != manifest.rows - n_sessions:
        raise InvariantError(f"{manifest.path}: {events} pairs seen, expected {manifest.rows - n_sessions}")
    return {
        "epoch": epoch,
        "loss": float(total) / events,
        "events": events,
        "steps": table.length,
        "rows_seen": manifest.rows,
        "seconds": round(seconds, 3),
        "events_per_second": round(events / seconds, 1),
    }


def _steps(trainer: Trainer, state: GruState, table: LaneTable, comm: Comm, epoch: int, graphs: bool) -> Steps:
    """The fastest steps that can be made here."""
    n_lanes = len(table.order)
    if fusible(trainer, state, n_lanes, comm):
        return FusedSteps(trainer, state, table.places, n_lanes).run
    if graphs and graphable(trainer, state, comm):
        return GraphedSteps(trainer, state, comm, n_lanes).run
    return _plain_steps(trainer, state, table, comm, epoch)


def _plain_steps(trainer: Trainer, state: GruState, table: LaneTable, comm: Comm, epoch: int) -> Steps:
    """The steps of any network on any device, by PyTorch's operations."""
    device = state.flat.device
    widths, places = trainer.network.state_widths * trainer.config.bptt, table.places.to(device)
    hidden = [torch.zeros(len(places), width, device=device) for width in widths]
    done = 0

    def run(chunk: Chunk, samples: torch.Tensor, drops: torch.Generator) -> Iterator[torch.Tensor]:
        nonlocal done
        for k in range(len(chunk.n_valid)):
            yield trainer.step(state, hidden, make_batch(chunk, k, samples[k], places, epoch, done + k), drops, comm)
        done += len(chunk.n_valid)

    return run


def _read_lanes(manifest: Manifest, config: GruConfig, epoch: int, comm: Comm) -> LaneTable:
    """One epoch's rows from the feed, held against the manifest, on their lanes."""
    widths = lanes_of_files(config.lanes, [f.rows for f in manifest.files])
    users = [] if manifest.group == "session" else [manifest.group]
    types = [TYPE] if config.event_types else []
    parts = read_files(manifest, comm.rank, comm.size, ["session", "item", *users, *types])
    check_total(manifest, sum(len(c["item"]) for c in parts.values()), comm)
    lanes = {
        f: walk_lanes(
            c["session"],
            c["item"],
            widths[f],
            _shuffle(config, epoch, f),
            c[manifest.group] if users else None,
            c.get(TYPE),
        )
        for f, c in parts.items()
        if widths[f]
    }
    return lane_table(lanes, widths, comm, config.event_types)


def _shuffle(config: GruConfig, epoch: int, file: int) -> np.random.Generator | None:
    """What draws the order of a file's sessions in an epoch, whichever rank reads it; None: that of time."""
    return np.random.default_rng((config.seed, epoch, file)) if config.session_order == "random" else None
