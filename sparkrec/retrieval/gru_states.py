"""Applying a trained GRU on Spark: sessions → states for the top-K, and the ranks of the next items for evaluation.

Each Python worker reads the model from its folder once, so the folder must be reachable from the executors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkrec.evaluation.sessions import rank_of
from sparkrec.tables import ITEM_IDX, ITEMS, SESSION_ID, USER_IDX

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from pyspark.sql import DataFrame

    from sparkrec.models.network import Network, Parameters

_SESSIONS_AT_ONCE = 2048
_SCORES_AT_ONCE = 16_000_000  # 64 MB of scores


def session_states(sessions: DataFrame, model_path: str) -> DataFrame:
    """The GRU's last hidden state after the last event of each session, from a zero state at its first.

    Items that the model was not trained on are passed over, for their embeddings are random: a session of nothing
    else has a zero vector and ``n_known`` 0.

    Args:
        sessions: Columns session_id, user_idx and items of ``tables.SESSIONS``.
        model_path: Folder of the model.

    Returns:
        session_id string, user_idx int, vector array<float> (width of the last layer), n_known int (events used).
    """
    from sparkrec.training.checkpoint import MODEL_HASH, read_model

    version = read_model(model_path)[MODEL_HASH]

    def states(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        served = _served_model(model_path, version)
        for batch in batches:
            flat, lengths = known_items(*_flat_items(batch), served.trained)
            vectors = np.concatenate([_last_states(served, *part) for part in _parts(flat, lengths)])
            width = vectors.shape[1]
            offsets = np.arange(len(lengths) + 1, dtype=np.int32) * width
            listed = pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.reshape(-1)))
            columns = [batch.column(SESSION_ID), batch.column(USER_IDX), listed, pa.array(lengths.astype(np.int32))]
            yield pa.RecordBatch.from_arrays(columns, names=[SESSION_ID, USER_IDX, "vector", "n_known"])

    schema = f"{SESSION_ID} string, {USER_IDX} int, vector array<float>, n_known int"
    return sessions.select(SESSION_ID, USER_IDX, ITEMS).mapInArrow(states, schema)


def output_items(model_path: str) -> tuple[np.ndarray, np.ndarray]:
    """The items' side of the scores: float32 [n_items, D] and the bias float32 [n_items].

    The score of an item for a session is vector · row + bias. See ``trained_items`` for those that have a meaning.
    """
    from sparkrec.training.checkpoint import load_model

    matrix, bias = _served(*load_model(model_path)).output
    return matrix.numpy(), bias.numpy()


def trained_items(model_path: str) -> np.ndarray:
    """Bool [n_items]: the items that occurred in the training data."""
    from sparkrec.training.checkpoint import load_model

    trained: np.ndarray = load_model(model_path)[0]["counts"].numpy() > 0
    return trained


def next_item_ranks(
    sessions: DataFrame, model_path: str, trained: np.ndarray | None = None, ties: str = "conservative"
) -> DataFrame:
    """The rank of each next event's item among all trained items, hidden state reset at each session's start.

    Events of items that were not trained are removed first, then sessions of fewer than two events; ``left_out``
    counts both.

    Args:
        sessions: Columns session_id and items of ``tables.SESSIONS``.
        model_path: Folder of the model.
        trained: Bool [n_items], candidates; default those of the model's training data.
        ties: The item's place among equal scores, see ``evaluation.sessions.rank_of``.

    Returns:
        session_id string, position int (of the predicted event among the session's remaining ones, from 1),
        item_idx int, rank double (from 1).
    """
    from sparkrec.training.checkpoint import MODEL_HASH, read_model

    version = read_model(model_path)[MODEL_HASH]
    mask = None if trained is None else sessions.sparkSession.sparkContext.broadcast(np.asarray(trained, bool))

    def ranks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        served = _served_model(model_path, version)
        candidates = served.trained if mask is None else mask.value
        for batch in batches:
            flat, lengths = known_items(*_flat_items(batch), candidates)
            found = [_next_ranks(served, candidates, *part, ties) for part in _parts(flat, lengths)]
            row, position, item, rank = (np.concatenate(c) for c in zip(*found, strict=True))
            row += np.repeat(np.arange(len(found)) * _SESSIONS_AT_ONCE, [len(f[0]) for f in found])
            columns = [batch.column(SESSION_ID).take(pa.array(row))]
            columns += [pa.array(c.astype(np.int32)) for c in (position, item)] + [pa.array(rank.astype(np.float64))]
            yield pa.RecordBatch.from_arrays(columns, names=[SESSION_ID, "position", ITEM_IDX, "rank"])

    schema = f"{SESSION_ID} string, position int, {ITEM_IDX} int, rank double"
    return sessions.select(SESSION_ID, ITEMS).mapInArrow(ranks, schema)


def left_out(sessions: DataFrame, trained: np.ndarray) -> dict[str, int]:
    """What ``next_item_ranks`` leaves out of its evaluation.

    Returns:
        events, sessions: all there are; events_unseen: of items not trained; sessions_short: left with fewer than
        two events; events_short: the single events of these.
    """
    from pyspark.sql import functions as F

    mask = sessions.sparkSession.sparkContext.broadcast(np.asarray(trained, bool))

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            before = _flat_items(batch)[1]
            after = known_items(*_flat_items(batch), mask.value)[1]
            short = after < 2
            values = [before.sum(), len(before), (before - after).sum(), short.sum(), after[short].sum()]
            yield pa.RecordBatch.from_arrays([pa.array([int(v)]) for v in values], names=names)

    names = ["events", "sessions", "events_unseen", "sessions_short", "events_short"]
    schema = ", ".join(f"{n} bigint" for n in names)
    counted = sessions.select(ITEMS).mapInArrow(count, schema)
    row = counted.agg(*[F.coalesce(F.sum(n), F.lit(0)).alias(n) for n in names]).head()
    assert row is not None  # an aggregate without groups has one row
    return {n: int(row[n]) for n in names}


def known_items(flat: np.ndarray, lengths: np.ndarray, trained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leaves out the events of items that are not trained (or newer than the catalogue): flat items and lengths."""
    inside = (flat >= 0) & (flat < len(trained))
    keep = inside & trained[np.where(inside, flat, 0)]
    row = np.repeat(np.arange(len(lengths)), lengths)
    return flat[keep], np.bincount(row[keep], minlength=len(lengths))


# ---- inside of the Python workers ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ServedModel:
    """A model as a worker holds it."""

    network: Network
    parameters: Parameters
    output: tuple[torch.Tensor, torch.Tensor]  # the items' matrix [n_items, D] and bias [n_items]
    trained: np.ndarray  # bool [n_items]

    @property
    def dim(self) -> int:
        """Width of a session's vector."""
        return self.output[0].shape[1]


@functools.lru_cache(maxsize=2)
def _served_model(path: str, version: str) -> ServedModel:
    """Reads the model once a process; ``version``, the weights' hash, tells a retrained one apart."""
    import torch

    from sparkrec.training.checkpoint import load_model

    torch.set_num_threads(1)  # Spark runs a task on each core
    return _served(*load_model(path))


def _served(weights: dict[str, torch.Tensor], described: dict[str, Any]) -> ServedModel:
    from sparkrec.models.gru import stored_network
    from sparkrec.models.network import from_tensors

    network = stored_network(described)
    parameters = from_tensors(network, weights)
    return ServedModel(network, parameters, network.output(parameters), weights["counts"].numpy() > 0)


def _flat_items(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """Items of all sessions of a batch one after another, and the number of each session's."""
    column = batch.column(ITEMS)
    return column.flatten().to_numpy(zero_copy_only=False), np.diff(column.offsets.to_numpy())


def _parts(flat: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The sessions in parts of bounded size; one part where there are none."""
    ends = np.concatenate([[0], np.cumsum(lengths)])
    for start in range(0, max(1, len(lengths)), _SESSIONS_AT_ONCE):
        stop = min(start + _SESSIONS_AT_ONCE, len(lengths))
        yield flat[ends[start] : ends[stop]], lengths[start:stop]


def _last_states(served: ServedModel, flat: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Float32 [sessions, D]."""
    result = np.zeros((len(lengths), served.dim), np.float32)

    def keep_last(t: int, sessions: np.ndarray, vector: torch.Tensor) -> None:
        ended = np.flatnonzero(lengths[sessions] == t + 1)
        result[sessions[ended]] = vector.numpy()[ended]

    _walk(served, flat, lengths, keep_last)
    return result


def _next_ranks(served: ServedModel, candidates: np.ndarray, flat: np.ndarray, lengths: np.ndarray, ties: str) -> tuple:
    """(session's place, position, item, rank) of each predicted event, as arrays."""
    import torch

    first = np.cumsum(lengths) - lengths
    vectors: list[torch.Tensor] = []
    rows: list[np.ndarray] = []
    positions: list[np.ndarray] = []

    def keep(t: int, sessions: np.ndarray, vector: torch.Tensor) -> None:
        on = lengths[sessions] > t + 1  # sorted by length, so these come first
        vectors.append(vector[: int(on.sum())])
        rows.append(sessions[on])
        positions.append(np.full(int(on.sum()), t + 1))

    _walk(served, flat, lengths, keep)
    row = np.concatenate([np.zeros(0, np.int64), *rows])
    position = np.concatenate([np.zeros(0, np.int64), *positions])
    item = flat[first[row] + position] if len(row) else np.zeros(0, np.int32)
    vector = torch.cat(vectors) if vectors else torch.zeros(0, served.dim)
    return row, position, item, _ranks(served, candidates, vector, item, ties)


def _ranks(
    served: ServedModel, candidates: np.ndarray, vectors: torch.Tensor, items: np.ndarray, ties: str
) -> np.ndarray:
    """The item's place among the candidates: [n]."""
    import torch

    chosen = np.flatnonzero(candidates)
    column = torch.from_numpy((np.cumsum(candidates) - 1)[items].astype(np.int64))
    weight, bias = (part[torch.from_numpy(chosen)] for part in served.output)
    block = max(1, _SCORES_AT_ONCE // max(1, len(chosen)))
    found = [
        rank_of((scores >= own).sum(1), (scores > own).sum(1), ties)
        for start in range(0, len(items), block)
        for scores in [torch.addmm(bias, vectors[start : start + block], weight.t())]
        for own in [scores.gather(1, column[start : start + block, None])]
    ]
    ranks: np.ndarray = torch.cat(found).numpy() if found else np.zeros(0, np.int64)
    return ranks


def _walk(
    served: ServedModel, flat: np.ndarray, lengths: np.ndarray, visit: Callable[[int, np.ndarray, Any], None]
) -> None:
    """Walks all sessions in step, the longest first; calls ``visit(t, sessions still on, their vectors)``."""
    import torch

    order = np.argsort(-lengths, kind="stable")
    starts, sorted_lengths = (np.cumsum(lengths) - lengths)[order], lengths[order]
    states = [torch.zeros(len(order), width) for width in served.network.state_widths]
    with torch.no_grad():
        for t in range(int(sorted_lengths[0]) if len(order) else 0):
            on = int((sorted_lengths > t).sum())
            items = torch.from_numpy(flat[starts[:on] + t].astype(np.int64))
            vector, states = served.network.advance(served.parameters, items, [h[:on] for h in states])
            visit(t, order[:on], vector)
