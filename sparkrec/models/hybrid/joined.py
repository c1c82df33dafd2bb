"""The embeddings that the network blender joins: of the blended models that have vectors, turned into one space.

The network learns with models that had not seen what came next, and serves with models that were trained anew. Their
spaces differ by a rotation at least, which no inner product notices, but layers would. So the served models' vectors
are turned by the orthogonal matrix that brings their items nearest to where the network knew them.

Source: Schönemann 1966, "A generalized solution of the orthogonal Procrustes problem"; so embeddings of different
times are brought together in Hamilton et al. 2016, "Diachronic word embeddings" (arXiv 1605.09096), sec. 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparkrec.errors import InvariantError, UserError
from sparkrec.models.scorer import DenseScorer
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.retrieval.topk import VECTOR
from sparkrec.warehouse.tables import NAME, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkrec.models.scorer import Scorer

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Joined:
    """The vectors of some models, of users and items.

    Attributes:
        users: ``(user_idx int, name string, vector array<float>)``, a row for each model that knows the user.
        items: Model → float32 [n_items, its width], of length 1; zeros for an item that it does not know.
    """

    users: DataFrame | None
    items: Mapping[str, Floats]

    @property
    def widths(self) -> tuple[int, ...]:
        """Of each model's vectors."""
        return tuple(matrix.shape[1] for matrix in self.items.values())

    def item_matrix(self, n_items: int) -> Floats:
        """The items' vectors side by side, [n_items, sum of widths]; later items have zeros."""
        found = np.zeros((n_items, sum(self.widths)), np.float32)
        begins = np.cumsum((0, *self.widths))
        for begin, matrix in zip(begins, self.items.values(), strict=False):
            found[: len(matrix), begin : begin + matrix.shape[1]] = matrix[:n_items]
        return found


def joined(scorers: Mapping[str, Scorer], asked: Sequence[str]) -> Joined:
    """The vectors of the models that have such.

    Args:
        scorers: Model → its scorer.
        asked: Models whose vectors are wanted; []: all that have some.

    Raises:
        UserError: A model that is asked for has none.
    """
    from pyspark.sql import functions as F

    able = {name: scorer for name, scorer in scorers.items() if isinstance(scorer, DenseScorer)}
    lacking = [name for name in asked if name not in able]
    if lacking:
        fix = f"choose among {', '.join(able) or 'none'}, or []"
        raise UserError("the hybrid blends no such model of vectors", where=f"hybrid.vectors={lacking}", fix=fix)
    chosen = {name: able[name] for name in able if not asked or name in asked}
    parts = [one.queries.select(USER_IDX, F.lit(name).alias(NAME), VECTOR) for name, one in chosen.items()]
    users = reduce(lambda a, b: a.unionByName(b), parts) if parts else None
    return Joined(users, {name: unit_items(one.items) for name, one in chosen.items()})


def unit_items(items: ItemMatrix) -> Floats:
    """The items' vectors at length 1, zeros for those that no list may hold."""
    there = items.positions()
    found = np.zeros_like(items.vectors)
    mine = items.vectors[there]
    found[there] = mine / np.maximum(np.linalg.norm(mine, axis=1, keepdims=True), 1e-12)
    return found


def rotation(served: Floats, known: Floats) -> tuple[Floats, float]:
    """What turns vectors of the served model into the space that the network knows.

    R = U V^T of the singular value decomposition U S V^T of A^T B minimises ‖A R − B‖ over the orthogonal matrices.

    Args:
        served: [n, d], of length 1 or 0; an item beyond one of the matrices counts for nothing.
        known: [m, d], likewise.

    Returns:
        [d, d], and the mean cosine of the turned vectors with the known ones.

    Raises:
        InvariantError: The widths differ.
    """
    if served.shape[1] != known.shape[1]:
        raise InvariantError(f"vectors of widths {served.shape[1]} and {known.shape[1]} are of no one space")
    n = min(len(served), len(known))
    both = served[:n].any(1) & known[:n].any(1)
    a, b = served[:n][both].astype(np.float64), known[:n][both].astype(np.float64)
    left, _, right = np.linalg.svd(a.T @ b)
    turned = left @ right
    cosine = float(np.einsum("ij,ij->i", a @ turned, b).mean()) if both.any() else 0.0
    return turned.astype(np.float32), cosine
