"""Snapshots with users and with items' vectors, and plain references of the networks that are not the plain GRU."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sparkrec.models.gru.bloom import positions
from sparkrec.ranks.snapshot import Manifest, SnapshotFile
from tests.models.gru.cases import adagrad, plain_gru, plain_loss, write_manifest

WIDTH = 3  # of the items' vectors


def random_users(n, n_items, seed=0, longest=5):
    """Users with one to four sessions, some of a single event."""
    rng = np.random.default_rng(seed)
    lengths = [rng.integers(1, longest + 1, rng.integers(1, 5)) for _ in range(n)]
    return [[rng.integers(0, n_items, k).tolist() for k in sessions] for sessions in lengths]


def write_users(path, users, n_files, n_lanes):
    """Users, in order of their first session, dealt out over files in the layout of a snapshot grouped by user."""
    Path(path, "data").mkdir(parents=True)
    entries = []
    for number in range(n_files):
        mine = [u for u in range(len(users)) if u % n_lanes % n_files == number]
        rows = [(u, u * 100 + s, i, x) for u in mine for s, items in enumerate(users[u]) for i, x in enumerate(items)]
        user, session, position, item = (np.array(c) for c in zip(*rows, strict=True)) if rows else [np.zeros(0)] * 4
        columns = {"session": session.astype(np.int64), "user": user.astype(np.int64),
                   "position": position.astype(np.int32), "item": item.astype(np.int32),
                   "file_no": np.full(len(rows), number, np.int32)}  # fmt: skip
        name = f"data/part-{number:05d}.parquet" if rows else ""
        if rows:
            pq.write_table(pa.table(columns), Path(path, name))
        entries.append(SnapshotFile(name, len(rows), len(mine)))
    manifest = Manifest(str(path), tuple(entries), tuple(columns), "user", (), n_lanes, {"sessions": 1})
    write_manifest(manifest)
    return manifest


def vectors_of(n_items, name="text"):
    """Vectors of all items but the first two."""
    made = np.random.default_rng(9).normal(size=(n_items, WIDTH)).astype(np.float32)
    made[:2] = 0
    return {name: torch.from_numpy(made)}


def write_vectors(path, vectors):
    """The vectors in a snapshot's folder, as two files."""
    for name, matrix in vectors.items():
        items = [i for i in range(len(matrix)) if matrix[i].any()]
        for part in (0, 1):
            rows = items[part::2]
            columns = {"item_idx": pa.array(rows, pa.int32()), "name": [name] * len(rows)}
            columns["vector"] = pa.array(matrix[rows].tolist(), pa.list_(pa.float32()))
            Path(path, "vectors").mkdir(exist_ok=True)
            pq.write_table(pa.table(columns), Path(path, "vectors", f"{name}{part}.parquet"))


# ---- one step of each network, in plain torch, for one lane ----------------------------------------------------------
# (weights by name, states or None, item, columns, start) → (scores [1, C], new states, name → touched rows)


def layered(w, prefix, x, states, n_layers):
    named = {k.replace(prefix, "gru", 1): v for k, v in w.items() if k.startswith(f"{prefix}.")}
    new = []
    for i in range(n_layers):
        h = states[i] if states else torch.zeros(1, len(named[f"gru.{i}.bias_hh"]) // 3)
        x = plain_gru(named, i, x, h)
        new.append(x)
    return new


class Parallel:
    def __init__(self, config, vectors):
        self.config, self.vectors, self.steps = config, vectors, 0

    def turn(self, epoch, step):
        n = len(self.vectors) + 1
        return {"simultaneous": None, "alternating": (epoch - 1) % n, "interleaving": step % n,
                "residual": (epoch - 1) * n // self.config.epochs}[self.config.schedule]  # fmt: skip

    def trained(self, epoch, step):
        turn = self.turn(epoch, step)
        own = [("embedding", "bias", "gru."), *[(f"output_{n}", f"gru_{n}.") for n in self.vectors]]
        return sum(own, ()) if turn is None else own[turn]

    def step(self, w, states, item, columns, start, epoch, step):
        states = None if start else states
        n = len(self.config.layers)
        new = layered(w, "gru", w["embedding"][[item]], states and states[:n], n)
        scores = new[-1] @ w["embedding"][columns].T + w["bias"][columns]
        last = self.turn(epoch, step) if self.config.schedule == "residual" else None
        for i, (name, matrix) in enumerate(self.vectors.items()):
            own = states and states[n + i * len(self.config.feature_layers) :]
            more = layered(w, f"gru_{name}", matrix[[item]], own, len(self.config.feature_layers))
            if last is None or last > i:
                scores = scores + more[-1] @ w[f"output_{name}"][columns].T
            new = new + more
        touched = {"embedding": {item, *columns.tolist()}, "bias": set(columns.tolist())}
        return scores, new, touched | {f"output_{n}": set(columns.tolist()) for n in self.vectors}


class Hierarchical:
    def __init__(self, config):
        self.config = config

    def trained(self, epoch, step):
        return ("",)

    def step(self, w, states, item, columns, start, epoch, step):
        n = len(self.config.layers)
        if start == "user":
            user, hidden = torch.zeros(1, self.config.user_units), [torch.zeros(1, k) for k in self.config.layers]
        elif start == "session":
            user = layered(w, "user", states[n - 1], states[n:], 1)[0]
            hidden = [torch.tanh(user @ w[f"init.{i}.weight"].T + w[f"init.{i}.bias"]) for i in range(n)]
        else:
            user, hidden = states[n], states[:n]
        x = w["embedding"][[item]]
        x = torch.cat([x, user], 1) if self.config.network == "hierarchical-all" else x
        new = layered(w, "gru", x, hidden, n)
        touched = {"embedding": {item, *columns.tolist()}, "bias": set(columns.tolist())}
        return new[-1] @ w["embedding"][columns].T + w["bias"][columns], [*new, user], touched


class Bloom:
    def __init__(self, config):
        self.config = config

    def trained(self, epoch, step):
        return ("",)

    def step(self, w, states, item, columns, start, epoch, step):
        of = positions(torch.cat([columns, torch.tensor([item])]), self.config.bloom_rows, self.config.bloom_hashes,
                       self.config.seed)  # fmt: skip
        n = len(self.config.layers)
        new = layered(w, "gru", w["embedding"][of[-1]].sum(0, keepdim=True), None if start else states, n)
        at_rows = new[-1] @ w["embedding"].T + w["bias"]
        scores = at_rows[0][of[:-1]].sum(1)[None]
        outputs = set(of[:-1].flatten().tolist())
        return scores, new, {"embedding": outputs | set(of[-1].tolist()), "bias": outputs}


def lstm_layers(w, widths, x, states):
    """The state of each layer: the output and, beside it, the cell's own."""
    new = []
    for i, width in enumerate(widths):
        layer = {k.removeprefix(f"lstm.{i}."): v for k, v in w.items() if k.startswith(f"lstm.{i}.")}
        before = torch.zeros(1, 2 * width) if states is None else states[i]
        made = torch.nn.LSTMCell(x.shape[1], width)
        x, c = torch.func.functional_call(made, layer, (x, before.chunk(2, 1)))
        new.append(torch.cat([x, c], 1))
    return new


def scored(w, x, item, columns):
    """Scores, and the rows that a step touches, of inputs and outputs in one table or in two."""
    matrix = "output" if "output" in w else "embedding"
    touched = {"embedding": {item}, "bias": set(columns.tolist())}
    touched[matrix] = touched.get(matrix, set()) | set(columns.tolist())
    return x @ w[matrix][columns].T + w["bias"][columns], touched


class Lstm:
    def __init__(self, config):
        self.config = config

    def trained(self, epoch, step):
        return ("",)

    def step(self, w, states, item, columns, start, epoch, step):
        new = lstm_layers(w, self.config.layers, w["embedding"][[item]], None if start else states)
        scores, touched = scored(w, new[-1][:, : self.config.layers[-1]], item, columns)
        return scores, new, touched


TYPES = {"a": 1, "b": 2, "c": 3}


def type_of(item, position):
    """The type of an event in the tests: it tells what neither the item nor the place alone does."""
    return 1 + (item + position) % len(TYPES)


class Typed:
    """An input is the item's row and its event's type's."""

    def __init__(self, config):
        self.config, self.position = config, 0

    def trained(self, epoch, step):
        return ("",)

    def step(self, w, states, item, columns, start, epoch, step):
        self.position = 0 if start else self.position + 1
        x, before = w["embedding"][[item]] + w["event_types"][[type_of(item, self.position)]], None if start else states
        if self.config.cell == "lstm":
            new = lstm_layers(w, self.config.layers, x, before)
        else:
            new = layered(w, "gru", x, before, len(self.config.layers))
        scores, touched = scored(w, new[-1][:, : self.config.layers[-1]], item, columns)
        return scores, new, {**touched, "event_types": set(range(1 + len(TYPES)))}


def reference_walk(network, initial, users, samples, config, counts):
    """Training as one would first write it: one lane, users and their sessions in order, dense autograd.

    Returns:
        Name → weight at the end, and the mean loss of each epoch.
    """
    w = {k: v.clone().requires_grad_() for k, v in initial.items()}
    acc, vel = ({k: torch.zeros_like(v) for k, v in initial.items()} for _ in range(2))
    losses = []
    for epoch in range(1, config.epochs + 1):
        total, step = 0.0, 0
        for user in users:
            states, start = None, "user"
            for session in user:
                for item, target in pairwise(session):
                    columns = torch.tensor([target, *samples(epoch, step)])
                    scores, states, touched = network.step(w, states, item, columns, start, epoch, step)
                    loss = plain_loss(scores, columns, 1, config, counts)
                    loss.backward()
                    trained = {k: v for k, v in w.items() if k.startswith(network.trained(epoch, step))}
                    for v in trained.values():
                        v.grad = torch.zeros_like(v) if v.grad is None else v.grad
                    adagrad(trained, acc, vel, touched, config)
                    for v in w.values():
                        v.grad = None
                    states, start = [h.detach() for h in states], None
                    total, step = total + loss.item(), step + 1
                start = "session" if len(session) > 1 and start is None else start
        losses.append(total / step)
    return {k: v.detach() for k, v in w.items()}, losses
