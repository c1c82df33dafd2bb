"""Small snapshots written without Spark, ranks as threads, and a plain reference of the GRU's training."""

import dataclasses
import json
import os
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sparkrec.ranks.shared_memory import SharedMemory, make_file
from sparkrec.ranks.snapshot import Manifest, SnapshotFile


def random_sessions(n, n_items, seed=0, longest=7):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, n_items, rng.integers(1, longest + 1)).tolist() for _ in range(n)]


def write_rows(path, sessions, n_files, n_lanes, key="session", types=None):
    """Sessions, in order of their first event, dealt out over files in the layout of a snapshot.

    ``types``: of each session those of its events.
    """
    Path(path, "data").mkdir(parents=True)
    entries = []
    for number in range(n_files):
        mine = [i for i in range(len(sessions)) if i % n_lanes % n_files == number]
        columns = {
            key: np.repeat(np.array(mine, np.int64) * 7, [len(sessions[i]) for i in mine]),
            "item": np.array([x for i in mine for x in sessions[i]], np.int32),
        }
        if types is not None:
            columns["event_type"] = np.array([x for i in mine for x in types[i]], np.int32)
        columns["file_no"] = np.full(len(columns["item"]), number, np.int32)
        name = f"data/part-{number:05d}.parquet" if mine else ""
        if mine:
            pq.write_table(pa.table(columns), Path(path, name))
        entries.append(SnapshotFile(name, len(columns["item"]), len(mine)))
    manifest = Manifest(str(path), tuple(entries), tuple(columns), key, (), n_lanes, {"sessions": 1})
    write_manifest(manifest)
    return manifest


def write_manifest(manifest):
    plain = dataclasses.asdict(manifest)
    path = plain.pop("path")
    Path(path, "manifest.json").write_text(json.dumps(plain))


class ThreadComm:
    """A rank that is a thread of this process."""

    def __init__(self, rank, size, shared, memory=None):
        self.rank, self.size, self.local_rank, self.local_size = rank, size, rank, size
        self.memory = memory
        self._board, self._meet = shared

    def _exchange(self, tensor):
        self._board[self.rank] = tensor.detach().clone()
        self._meet.wait(60)
        everyone = list(self._board)
        self._meet.wait(60)
        return everyone

    def allreduce_sum(self, tensor):
        return sum(self._exchange(tensor))

    def allgather(self, tensor):
        return torch.cat(self._exchange(tensor))

    def broadcast(self, tensor, root=0):
        return self._exchange(tensor)[root].clone()  # each rank has its own

    def barrier(self):
        self._meet.wait(60)


def on_threads(size, fn, *args, slot_bytes=0):
    """Results of ``fn(comm, *args)`` on ``size`` ranks, in rank order; raises what a rank raised.

    ``slot_bytes``: they share memory with slots of this size.
    """
    shared = ([None] * size, threading.Barrier(size))
    path = make_file(size, slot_bytes) if slot_bytes else None
    results, errors, cut_off = [None] * size, [], []

    def run(rank):
        memory = SharedMemory(path, rank, size, slot_bytes=slot_bytes) if path else None
        try:
            results[rank] = fn(ThreadComm(rank, size, shared, memory), *args)
        except threading.BrokenBarrierError as error:  # another rank raised, or one has waited in vain
            cut_off.append(error)
        except Exception as error:
            errors.append(error)
            shared[1].abort()
            if memory:
                memory.leave()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if path:
        os.unlink(path)
    if errors or cut_off:
        raise [*errors, *cut_off][0]
    return results


def reference_train(parameters, sessions, n_lanes, samples, config, epochs, counts):
    """GRU4Rec as one would first write it: lists, autograd over dense weights, every candidate a column.

    Args:
        parameters: Name → initial weight, as in a model's file.
        sessions: Lists of items, in order.
        n_lanes: Sessions walked in parallel.
        samples: samples(epoch, step) → additional negatives of that step.
        config: A GruConfig; its dropout must be 0.
        epochs: Number of epochs.
        counts: Events of each item.

    Returns:
        Name → weight at the end, and the mean loss of each epoch.
    """
    w = {k: v.clone().requires_grad_() for k, v in parameters.items()}
    acc, vel = ({k: torch.zeros_like(v) for k, v in parameters.items()} for _ in range(2))
    n_layers = len(config.layers)
    losses = []
    for epoch in range(1, epochs + 1):
        queue = [s for s in sessions if len(s) > 1]
        lanes = [None] * n_lanes  # (session, position)
        hidden = [[torch.zeros(width) for width in config.layers] for _ in range(n_lanes)]
        total, events, step = 0.0, 0, 0
        while True:
            for lane in range(n_lanes):
                if lanes[lane] is None and queue:
                    lanes[lane] = (queue.pop(0), 0)
                    hidden[lane] = [torch.zeros(width) for width in config.layers]
            on = [lane for lane in range(n_lanes) if lanes[lane] is not None]
            if not on:
                break
            inputs = [lanes[lane][0][lanes[lane][1]] for lane in on]
            targets = [lanes[lane][0][lanes[lane][1] + 1] for lane in on]
            negatives = samples(epoch, step)
            columns = torch.tensor([*targets, *negatives])
            x = w["input_gates" if config.embedding == "none" else "embedding"][torch.tensor(inputs)]
            for i in range(n_layers):
                h = torch.stack([hidden[lane][i] for lane in on]).detach()
                x = plain_lookup(w, x, h) if i == 0 and config.embedding == "none" else plain_gru(w, i, x, h)
                for row, lane in enumerate(on):
                    hidden[lane][i] = x[row].detach()
            matrix = "embedding" if config.embedding == "constrained" else "output"
            scores = x @ w[matrix][columns].T + w["bias"][columns]
            loss = plain_loss(scores, columns, len(targets), config, counts)
            (loss / n_lanes).backward()
            touched = {"embedding": set(inputs), "input_gates": set(inputs), "bias": set(columns.tolist())}
            touched[matrix] = touched.get(matrix, set()) | set(columns.tolist())
            adagrad(w, acc, vel, touched, config)
            total, events, step = total + loss.item(), events + len(on), step + 1
            for lane in on:
                session, position = lanes[lane]
                lanes[lane] = (session, position + 1) if position + 2 < len(session) else None
        losses.append(total / events)
    return {k: v.detach() for k, v in w.items()}, losses


def plain_gru(w, i, x, h):
    x_r, x_z, x_n = (x @ w[f"gru.{i}.weight_ih"].T + w[f"gru.{i}.bias_ih"]).chunk(3, 1)
    h_r, h_z, h_n = (h @ w[f"gru.{i}.weight_hh"].T + w[f"gru.{i}.bias_hh"]).chunk(3, 1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return (1 - z) * n + z * h


def plain_lookup(w, x, h):
    (x_r, x_z, x_n), (w_r, w_z, w_n) = (x + w["gru.0.bias"]).chunk(3, 1), w["gru.0.weight_hh"].chunk(3)
    r, z = torch.sigmoid(x_r + h @ w_r.T), torch.sigmoid(x_z + h @ w_z.T)
    return (1 - z) * torch.tanh(x_n + (r * h) @ w_n.T) + z * h


def plain_loss(scores, columns, n_targets, config, counts):
    rows = torch.arange(n_targets)
    if config.loss == "cross-entropy":
        q = counts[columns].float()
        q[n_targets:] = q[n_targets:] ** config.sample_alpha
        return torch.nn.functional.cross_entropy(scores - config.logq * q.log(), rows, reduction="sum")
    r = torch.nn.functional.elu(scores, config.elu) if config.loss == "bpr-max" else scores
    own = torch.eye(*r.shape, dtype=torch.bool)
    s = torch.softmax(r.masked_fill(own, -torch.inf), 1)
    behind = r - r[rows, rows][:, None]
    if config.loss == "bpr":
        return -(~own * torch.sigmoid(-behind).log()).sum() / (len(columns) - 1)
    if config.loss == "top1":
        return (~own * (torch.sigmoid(behind) + torch.sigmoid(r**2))).sum() / (len(columns) - 1)
    if config.loss == "top1-max":
        return (s * (torch.sigmoid(behind) + torch.sigmoid(r**2))).sum()
    won = (s * torch.sigmoid(-behind)).sum(1)
    return (-won.log() + config.bpreg * (s * r**2).sum(1)).sum()


def adagrad(w, acc, vel, touched, config):
    for name, p in w.items():
        rows = torch.tensor(sorted(touched[name])) if name in touched else slice(None)
        g = p.grad[rows]
        acc[name][rows] = acc[name][rows] + g * g
        v = config.momentum * vel[name][rows] - config.learning_rate * g / torch.sqrt(acc[name][rows] + 1e-6)
        vel[name][rows] = v
        with torch.no_grad():
            p[rows] = p[rows] + v
        p.grad = None
