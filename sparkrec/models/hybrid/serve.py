"""Ranking candidates by a trained network blender, on Spark: a row a user, with their candidates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkrec.errors import InvariantError
from sparkrec.models.hybrid.joined import Joined
from sparkrec.models.hybrid.train import NETWORK
from sparkrec.processes import begin_task
from sparkrec.ranks.checkpoint import load_model
from sparkrec.spark.broadcast import broadcast
from sparkrec.warehouse.tables import ITEM_IDX, NAME, RANK, SCORE, USER_IDX, VECTOR

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from sparkrec.models.hybrid.network import BlenderNetwork

_CANDIDATES = "candidates"
_AT_ONCE = 65_536  # candidates


@dataclass(frozen=True)
class NetworkBlender:
    """A network of a stored model, with the vectors of the part that is served.

    Attributes:
        weights: The network's, by name.
        described: ``model.json``.
        vectors: The models' vectors, in the space that the network knows: see ``turned``.
    """

    weights: Mapping[str, Any]
    described: Mapping[str, Any]
    vectors: Joined

    @classmethod
    def load(cls, path: str, vectors: Joined) -> NetworkBlender:
        """The blender of a part's folder, over the same part of the models whose vectors it was trained with."""
        weights, described = load_model(path)
        if list(vectors.items) != list(described["vectors"]) or list(vectors.widths) != list(described["widths"]):
            raise InvariantError(f"{path} knows vectors of {described['vectors']}, these are of {list(vectors.items)}")
        turn = {name: weights[f"rotation.{name}"].numpy() for name in vectors.items}
        own = {name: weight for name, weight in weights.items() if name.startswith(NETWORK)}
        items = {name: matrix @ turn[name] for name, matrix in vectors.items.items()}
        return cls(own | {f"rotation.{n}": r for n, r in turn.items()}, described, Joined(vectors.users, items))

    def network(self) -> BlenderNetwork:
        """The network."""
        from sparkrec.models.hybrid.network import BlenderNetwork, BlenderShape

        described = self.described
        shape = BlenderShape(
            len(described["features"]), tuple(described["widths"]), tuple(described["config"]["hidden"])
        )
        network = BlenderNetwork(shape)
        network.load_state_dict(
            {name.removeprefix(NETWORK): w for name, w in self.weights.items() if name.startswith(NETWORK)}
        )
        return network.eval()

    def lists(self, rows: DataFrame, names: Sequence[str], k: int) -> DataFrame:
        """See ``blender.blended``."""
        from pyspark.sql import functions as F

        if list(names) != list(self.described["features"]):
            raise InvariantError(f"the network learnt {self.described['features']}, these are {list(names)}")
        one = F.struct(ITEM_IDX, F.array(*[F.col(name).cast("float") for name in names]).alias("features"))
        grouped = rows.groupBy(USER_IDX).agg(F.sort_array(F.collect_list(one)).alias(_CANDIDATES))
        models = list(self.vectors.items)
        for n, name in enumerate(models):
            users = self.vectors.users
            if users is None:
                raise InvariantError("vectors of items without those of users")
            mine = users.where(F.col(NAME) == name).select(USER_IDX, F.col(VECTOR).alias(f"v_{n}"))
            grouped = grouped.join(mine, USER_IDX, "left")
        n_items = max((len(one) for one in self.vectors.items.values()), default=0)
        held = (self.network(), self.vectors.item_matrix(n_items), [self.weights[f"rotation.{m}"] for m in models])
        shared = broadcast(rows.sparkSession, held)

        def best(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            import torch

            torch.set_num_threads(1)  # Spark runs a task on each core
            begin_task()
            for batch in batches:
                yield from _best(batch, *shared.value, k)

        return grouped.mapInArrow(best, f"{USER_IDX} int, {ITEM_IDX} int, {RANK} int, {SCORE} float")


def _best(
    batch: pa.RecordBatch, network: BlenderNetwork, matrix: np.ndarray, rotations: Sequence[np.ndarray], k: int
) -> Iterator[pa.RecordBatch]:
    """The lists of a batch of users, in blocks of bounded size."""
    import pyarrow as pa
    import torch

    from sparkrec.models.hybrid.network import lengths_one

    lists = batch.column(_CANDIDATES)
    offsets, numbers = lists.offsets.to_numpy(), batch.column(USER_IDX).to_numpy()
    one = lists.flatten()
    item = one.field(0).to_numpy(zero_copy_only=False)
    flat = one.field(1).flatten().to_numpy(zero_copy_only=False).reshape(len(item), network.shape.n_features)
    users = [_dense(batch.column(f"v_{n}"), len(turn)) @ turn for n, turn in enumerate(rotations)]
    vectors = np.concatenate(users, 1) if users else np.zeros((len(numbers), 0), np.float32)
    mine = lengths_one(torch.from_numpy(vectors.astype(np.float32)), network.shape.widths)
    owner = np.repeat(np.arange(len(numbers)), np.diff(offsets))
    padded = np.concatenate([matrix, np.zeros((1, matrix.shape[1]), np.float32)])  # of items that came since
    place = np.where(item < len(matrix), item, len(matrix))
    score = np.zeros(len(item), np.float32)
    with torch.no_grad():
        for begin in range(0, len(item), _AT_ONCE):
            at = slice(begin, begin + _AT_ONCE)
            given = (torch.from_numpy(flat[at].copy()), mine[owner[at]], torch.from_numpy(padded[place[at]]))
            score[at] = network(*given).numpy()
    order = np.lexsort((item, -score, owner))
    first = np.searchsorted(owner, np.arange(len(numbers)))
    rank = np.arange(len(item)) - first[owner[order]] + 1
    kept = order[rank <= k]
    yield pa.RecordBatch.from_arrays(
        [
            pa.array(numbers[owner[kept]].astype(np.int32)),
            pa.array(item[kept].astype(np.int32)),
            pa.array(rank[rank <= k].astype(np.int32)),
            pa.array(score[kept]),
        ],
        names=[USER_IDX, ITEM_IDX, RANK, SCORE],
    )


def _dense(column: pa.Array, width: int) -> np.ndarray:
    """float32 [n, width] of lists, zeros where there is none."""
    found = np.zeros((len(column), width), np.float32)
    there = np.asarray(column.is_valid())
    found[there] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return found
