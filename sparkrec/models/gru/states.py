"""Applying a trained GRU on Spark: sessions → states for the top-K, and the ranks of the next items for evaluation.

Each Python worker reads the model from its folder once, so the folder must be reachable from the executors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sparkrec.evaluation.session_events import NEW_RANK, Taken, flat_lists, known_items, of_known_items
from sparkrec.evaluation.session_events import left_out as left_out
from sparkrec.evaluation.sessions import rank_of
from sparkrec.models.gru.protocol import NO_START, SESSION_START, USER_START
from sparkrec.processes import begin_task
from sparkrec.ranks.checkpoint import MODEL_HASH
from sparkrec.retrieval.block_search import FloatArray, IntArray
from sparkrec.retrieval.topk import SEEN
from sparkrec.spark.broadcast import broadcast
from sparkrec.warehouse.tables import EVENT_TYPES, ITEM_IDX, ITEMS, SESSION_ID, START_TS, USER_IDX

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from pyspark.sql import DataFrame

    from sparkrec.models.gru.protocol import Network, Parameters

_WALK, _ASKED = "walk", "asked"
_WALKS_AT_ONCE = 2048
_SCORES_AT_ONCE = 16_000_000  # 64 MB of scores


class Blend(Protocol):
    """What the scores may be blended with, as it travels to the workers."""

    def after(
        self, scores: FloatArray, items: IntArray, flat: IntArray, begins: IntArray, ends: IntArray, users: pa.Array
    ) -> FloatArray:
        """The scores to rank by, float32 ``[b, m]``, after the events ``begins`` to ``ends`` of b sessions.

        Args:
            scores: float32 ``[b, m]``: the GRU's, finite.
            items: int64 ``[m]``: the items that they are of.
            flat: int64: the items of all sessions' events.
            begins: int64 ``[b]``: where each session begins in ``flat``.
            ends: int64 ``[b]``: where what has come of it ends.
            users: int32 ``[b]``: the sessions' users, null for nobody.
        """


def session_states(sessions: DataFrame, model_path: str, history: DataFrame | None = None) -> DataFrame:
    """The GRU's vector after the last event of each session.

    A session begins with a zero state. Of a hierarchical network it begins with the state that its user's earlier
    sessions leave behind, those of ``sessions`` and of ``history``; as in training, a session leaves the state before
    its last event, and none where it has a single one. Items that the model was not trained on are passed over, for
    their embeddings are random: a session of nothing else has a zero vector and ``n_known`` 0.

    Args:
        sessions: Columns session_id, user_idx, start_ts and items of ``tables.SESSIONS``, and for a network of them
            event_types.
        model_path: Folder of the model.
        history: Further sessions of the same users, which get no row; for other networks they have no meaning.

    Returns:
        session_id string, user_idx int, vector array<float> (the network's ``dim``), n_known int (events used).
    """
    described, walked = _walked(sessions, history, model_path)

    def states(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        served = _served_model(model_path, described[MODEL_HASH])
        begin_task()
        for batch in batches:
            for walks in _parts(_walks(batch, served.trained)):
                asked = walks.asked.nonzero()[0]
                vectors = np.zeros((len(walks.lengths), served.network.dim), np.float32)
                wanted = walks.last & walks.asked[walks.session]
                vectors[walks.session[wanted]] = _vectors(served, walks, wanted).numpy()
                offsets = np.arange(len(asked) + 1, dtype=np.int32) * vectors.shape[1]
                listed = pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors[asked].reshape(-1)))
                known = pa.array(walks.lengths[asked].astype(np.int32))
                columns = [walks.ids.take(pa.array(asked)), walks.users.take(pa.array(asked)), listed, known]
                yield pa.RecordBatch.from_arrays(columns, names=[SESSION_ID, USER_IDX, "vector", "n_known"])

    return walked.mapInArrow(states, f"{SESSION_ID} string, {USER_IDX} int, vector array<float>, n_known int")


def output_items(model_path: str) -> tuple[np.ndarray, np.ndarray]:
    """The items' side of the scores: float32 [n_items, D] and the bias float32 [n_items].

    The score of an item for a session is vector · row + bias. See ``trained_items`` for those that have a meaning.
    """
    from sparkrec.ranks.checkpoint import load_model

    served = _served(*load_model(model_path))
    matrix, bias = served.network.output(served.parameters)
    return matrix.numpy(), bias.numpy()


def trained_items(model_path: str) -> np.ndarray:
    """Bool [n_items]: the items that occurred in the training data."""
    from sparkrec.ranks.checkpoint import load_model

    trained: np.ndarray = load_model(model_path)[0]["counts"].numpy() > 0
    return trained


def next_item_ranks(
    sessions: DataFrame,
    model_path: str,
    trained: np.ndarray | None = None,
    ties: str = "conservative",
    history: DataFrame | None = None,
    blend: Blend | None = None,
) -> DataFrame:
    """The rank of each next event's item among all trained items; sessions begin as for ``session_states``.

    Events of items that were not trained are removed first, then sessions of fewer than two events; ``left_out``
    counts both.

    Args:
        sessions: Columns session_id, user_idx, start_ts and items of ``tables.SESSIONS``, and for a network of them
            event_types; optionally ``seen array<int>``, see ``scorer.SessionModel``.
        model_path: Folder of the model.
        trained: Bool [n_items], candidates; default those of the model's training data.
        ties: The item's place among equal scores, see ``evaluation.sessions.rank_of``.
        history: Further sessions of the same users, which are not judged; for a hierarchical network.
        blend: Ranks by its scores instead of the GRU's alone.

    Returns:
        session_id string, position int (of the predicted event among the session's remaining ones, from 1),
        item_idx int, rank double (from 1), and with ``seen`` new_rank double.
    """
    described, walked = _walked(sessions, history, model_path)
    mask = None if trained is None else broadcast(sessions.sparkSession, np.asarray(trained, bool))
    blender = None if blend is None else broadcast(sessions.sparkSession, blend)

    def ranks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        served = _served_model(model_path, described[MODEL_HASH])
        begin_task()
        candidates = served.trained if mask is None else mask.value
        for batch in batches:
            for walks in _parts(_walks(batch, candidates)):
                wanted = ~walks.last & walks.asked[walks.session]
                vectors, event = _vectors(served, walks, wanted), wanted.nonzero()[0]
                items = walks.items[event + 1]
                score = _scores(served, candidates, vectors, walks, event, None if blender is None else blender.value)
                found, new = _ranks(score, candidates, walks, event, ties)
                columns = [walks.ids.take(pa.array(walks.session[event]))]
                columns += [pa.array(c.astype(np.int32)) for c in (walks.place[event] + 1, items)]
                columns += [pa.array(found.astype(np.float64))]
                columns += [] if new is None else [pa.array(new, from_pandas=True)]
                yield pa.RecordBatch.from_arrays(columns, names=names)

    schema = f"{SESSION_ID} string, position int, {ITEM_IDX} int, rank double"
    schema = f"{schema}, {NEW_RANK} double" if SEEN in sessions.columns else schema
    names = [column.split()[0] for column in schema.split(", ")]
    return walked.mapInArrow(ranks, schema)


def _walked(sessions: DataFrame, history: DataFrame | None, model_path: str) -> tuple[dict[str, Any], DataFrame]:
    """``model.json``, and a row for each walk: its sessions in order, of which those not asked for only carry states.

    A walk begins with zero states. It is a session; of a hierarchical network all sessions of a user, where one
    without a user is a walk of its own.
    """
    from pyspark.sql import functions as F

    from sparkrec.models.gru.choice import by_user
    from sparkrec.models.gru.settings import GruConfig
    from sparkrec.ranks.checkpoint import read_model

    described = read_model(model_path)
    config = GruConfig(**described["config"])
    columns = [SESSION_ID, USER_IDX, ITEMS, _ASKED, *([SEEN] if SEEN in sessions.columns else [])]
    columns += [EVENT_TYPES] if config.event_types else []
    asked = sessions.withColumn(_ASKED, F.lit(True))
    if not by_user(config):
        return described, asked.select(F.array(F.struct(*columns)).alias(_WALK))
    if history is not None:
        users = sessions.select(USER_IDX).distinct()
        mine = {_ASKED: F.lit(False), SEEN: F.array().cast("array<int>")}
        earlier = history.join(users, USER_IDX, "left_semi").withColumns(mine)
        columns_of_all = [START_TS, *columns]
        asked = asked.select(*columns_of_all).unionByName(earlier.select(*columns_of_all))
    nobody = F.when(F.col(USER_IDX).isNull(), F.col(SESSION_ID)).alias("nobody")
    ordered = F.sort_array(F.collect_list(F.struct(START_TS, *columns)))
    grouped = asked.groupBy(USER_IDX, nobody).agg(ordered.alias("ordered"))
    one = F.transform("ordered", lambda s: F.struct(*[s[c].alias(c) for c in columns]))
    return described, grouped.select(one.alias(_WALK))


# ---- inside of the Python workers ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ServedModel:
    """A model as a worker holds it."""

    network: Network
    parameters: Parameters
    trained: np.ndarray  # bool [n_items]


@functools.lru_cache(maxsize=2)
def _served_model(path: str, version: str) -> ServedModel:
    """Reads the model once a process; ``version``, the weights' hash, tells a retrained one apart."""
    import torch

    from sparkrec.ranks.checkpoint import load_model

    torch.set_num_threads(1)  # Spark runs a task on each core
    return _served(*load_model(path))


def _served(weights: dict[str, torch.Tensor], described: dict[str, Any]) -> ServedModel:
    from sparkrec.models.gru.choice import stored_network
    from sparkrec.models.gru.protocol import from_tensors

    network = stored_network(described, weights)
    parameters = from_tensors(network, weights)
    return ServedModel(network, parameters, weights["counts"].numpy() > 0)


@dataclass(frozen=True)
class Walks:
    """S sessions in W walks, with E events in all."""

    ids: pa.Array  # [S]
    users: pa.Array  # [S]
    asked: np.ndarray  # bool [S]
    items: np.ndarray  # int [E]
    lengths: np.ndarray  # int [S], events of each session
    sizes: np.ndarray  # int [W], sessions of each walk
    taken: Taken | None  # before each session
    types: np.ndarray | None = None  # int [E], of the events, where the network asks for them

    @property
    def session(self) -> np.ndarray:
        """Int [E], the session of each event."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def place(self) -> np.ndarray:
        """Int [E], the place of each event in its session."""
        return np.arange(len(self.items)) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)

    @property
    def last(self) -> np.ndarray:
        """Bool [E]: the event is the last one of its session."""
        last: np.ndarray = self.place == self.lengths[self.session] - 1
        return last

    @property
    def start(self) -> np.ndarray:
        """Int8 [E]: NO_START, SESSION_START, or USER_START where no session of two events or more came before.

        As in training, which a session of one event is no part of: a walk of sessions of 1, 1, 3 and 2 events begins
        its user thrice and its last session once.
        """
        long = (self.lengths > 1).astype(np.int64)
        earlier = np.cumsum(long) - long
        first = np.cumsum(self.sizes) - self.sizes
        fresh = earlier == np.repeat(earlier[first], self.sizes)
        begins = np.where(fresh, USER_START, SESSION_START)[self.session]
        return np.where(self.place == 0, begins, NO_START).astype(np.int8)


def _walks(batch: pa.RecordBatch, known: np.ndarray) -> Walks:
    """The walks of a batch, with the events of known items alone."""
    column = batch.column(_WALK)
    rows = column.flatten()
    given = dict(zip((field.name for field in rows.type), rows.flatten(), strict=True))
    every, n_events = flat_lists(given[ITEMS])
    flat, lengths = known_items(every, n_events, known)
    taken = Taken.listed(given[SEEN], known) if SEEN in given else None
    types = flat_lists(given[EVENT_TYPES])[0][of_known_items(every, known)] if EVENT_TYPES in given else None
    sizes, asked = np.diff(column.offsets.to_numpy()), given[_ASKED].to_numpy(zero_copy_only=False)
    return Walks(given[SESSION_ID], given[USER_IDX], asked, flat, lengths, sizes, taken, types)


def _parts(walks: Walks) -> Iterator[Walks]:
    """Parts of bounded size."""
    sessions, events = (np.concatenate([[0], np.cumsum(n)]) for n in (walks.sizes, walks.lengths))
    for start in range(0, len(walks.sizes), _WALKS_AT_ONCE):
        stop = min(start + _WALKS_AT_ONCE, len(walks.sizes))
        low, high = sessions[start], sessions[stop]
        yield Walks(
            walks.ids.slice(low, high - low),
            walks.users.slice(low, high - low),
            walks.asked[low:high],
            walks.items[events[low] : events[high]],
            walks.lengths[low:high],
            walks.sizes[start:stop],
            None if walks.taken is None else walks.taken.part(slice(low, high)),
            None if walks.types is None else walks.types[events[low] : events[high]],
        )


def _vectors(served: ServedModel, walks: Walks, wanted: np.ndarray) -> torch.Tensor:
    """The network's vectors after the wanted events [E], in their order: float [wanted events, D].

    All walks go in step, the longest first. What follows a session's last event does not know of it, as in training,
    where it is no input.
    """
    import torch

    place = np.cumsum(wanted) - 1
    result = torch.zeros(int(wanted.sum()), served.network.dim)
    per_walk = np.bincount(np.repeat(np.arange(len(walks.sizes)), walks.sizes), walks.lengths, len(walks.sizes))
    lengths = per_walk.astype(np.int64)
    order = np.argsort(-lengths, kind="stable")
    first, lengths = (np.cumsum(lengths) - lengths)[order], lengths[order]
    last, start = torch.from_numpy(walks.last)[:, None], torch.from_numpy(walks.start)
    states = [torch.zeros(len(order), width) for width in served.network.state_widths]
    with torch.no_grad():
        for t in range(int(lengths[0]) if len(order) else 0):
            on = int((lengths > t).sum())
            event = first[:on] + t
            items = torch.from_numpy(walks.items[event].astype(np.int64))
            types = None if walks.types is None else torch.from_numpy(walks.types[event].astype(np.int64))
            before = [h[:on] for h in states]
            vector, after = served.network.advance(served.parameters, items, before, start[event], types)
            states = [torch.where(last[event], old, new) for old, new in zip(before, after, strict=True)]
            kept = wanted[event]
            result[place[event[kept]]] = vector[kept]
    return result


def _scores(
    served: ServedModel,
    candidates: np.ndarray,
    vectors: torch.Tensor,
    walks: Walks,
    event: np.ndarray,
    blend: Blend | None,
) -> Callable[[slice], torch.Tensor]:
    """The candidates' scores after a block of the events: float [b, candidates]."""
    import pyarrow as pa
    import torch

    chosen = np.flatnonzero(candidates)
    score = served.network.scorer(served.parameters, torch.from_numpy(chosen))
    begins = event - walks.place[event]

    def scores(block: slice) -> torch.Tensor:
        own: torch.Tensor = score(vectors[block])
        if blend is None:
            return own
        users = walks.users.take(pa.array(walks.session[event[block]]))
        return torch.from_numpy(blend.after(own.numpy(), chosen, walks.items, begins[block], event[block] + 1, users))

    return scores


def _ranks(
    scores: Callable[[slice], torch.Tensor], candidates: np.ndarray, walks: Walks, event: np.ndarray, ties: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """The place of what follows each of the events [n] among the candidates, and among the new ones: [n] each.

    The latter is NaN where what follows is not new, and None where nobody says what had been taken.
    """
    import torch

    column_of, items, session = np.cumsum(candidates) - 1, walks.items[event + 1], walks.session[event]
    begins = event - walks.place[event]
    column = torch.from_numpy(column_of[items].astype(np.int64))
    at_once = max(1, _SCORES_AT_ONCE // max(1, int(candidates.sum())))
    new = None if walks.taken is None else walks.taken.new(walks.items, walks.lengths)[event + 1]
    found, of_new = np.zeros(len(items)), np.full(len(items), np.nan)
    for start in range(0, len(items), at_once):
        block = slice(start, start + at_once)
        all_scores = scores(block)
        own = all_scores.gather(1, column[block, None])
        found[block] = _places(all_scores, own, ties)
        if walks.taken is None or new is None:
            continue
        rows, taken = walks.taken.before(walks.items, session[block], begins[block], event[block] + 1)
        all_scores[torch.from_numpy(rows), torch.from_numpy(column_of[taken])] = -torch.inf
        of_new[block] = np.where(new[block], _places(all_scores, own, ties), np.nan)
    return found, None if new is None else of_new


def _places(scores: torch.Tensor, own: torch.Tensor, ties: str) -> np.ndarray:
    """The places of scores, float [b, 1], among their rows': [b]."""
    places: np.ndarray = rank_of((scores >= own).sum(1), (scores > own).sum(1), ties).numpy()
    return places
