"""The search of blocks of queries for the best items by inner product: arrays alone, without Spark.

Each block of queries is one BLAS matrix product followed by a partial selection in two levels, all vectorised over
the block:

1. Items are laid out in chunks of ``c`` consecutive positions. The maximum of each chunk is taken (one pass over
   the scores), and the best chunks are selected.
2. Only the scores of those chunks are searched for the best candidates, ``MARGIN`` more than the list is long.
3. BLAS rounds one and the same product differently from block to block and from machine to machine. So the
   candidates are scored again by a sum of fixed order, which decides. Where an item that is no candidate could still
   reach the list within the bounds of rounding (mostly ties), all items that could are scored so.

This is exact: an item outside the best ``n`` chunks is beaten by the best item of each of them. Equal scores are
ordered by the smaller item, so the result does not depend on blocks, partitions, reruns or the BLAS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparkrec.errors import InvariantError

if TYPE_CHECKING:
    pass

MIN_ROWS = 256  # queries in a block, at least: fewer make the matrix product slow, so items are cut into tiles


MAX_ROWS = 4096


MIN_TILE = 64  # items in a tile, at least


MARGIN = 8  # candidates more than the list is long


PAIRS_AT_ONCE = 1 << 16  # scored by the sum of fixed order


UNIT = 2.0**-24  # half the distance of 1 to the next float32: the largest relative rounding error


FloatArray = npt.NDArray[np.float32]


IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ItemMatrix:
    """What is searched; the row number is the ``item_idx``.

    Attributes:
        vectors: float32 ``[n, d]``; ``d`` may be 0.
        bias: float32 ``[n]``, added to every query's score, or None.
        eligible: bool ``[n]``, False for an item that no list may hold, or None when all may.
    """

    vectors: FloatArray
    bias: FloatArray | None = None
    eligible: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        n = len(self.vectors)
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float32:
            raise InvariantError(f"item vectors must be float32 [n, d], not {self.vectors.dtype} {self.vectors.shape}")
        for name, array in (("bias", self.bias), ("eligible", self.eligible)):
            if array is not None and array.shape != (n,):
                raise InvariantError(f"{name} of {n} items has shape {array.shape}")
        allowed = self.positions()
        finite = np.isfinite(self.vectors[allowed]).all() and (
            self.bias is None or np.isfinite(self.bias[allowed]).all()
        )
        if not finite:
            raise InvariantError("an item vector or bias is not finite")

    def without(self, excluded: IntArray) -> ItemMatrix:
        """The same items, some of which (``item_idx``) no list may hold; numbers beyond the matrix are ignored."""
        if not len(excluded):
            return self
        eligible = np.ones(len(self.vectors), dtype=np.bool_) if self.eligible is None else self.eligible.copy()
        eligible[excluded[excluded < len(eligible)]] = False
        return ItemMatrix(self.vectors, self.bias, eligible)

    def positions(self) -> IntArray:
        """The eligible ``item_idx``, ascending."""
        return np.arange(len(self.vectors)) if self.eligible is None else np.flatnonzero(self.eligible)

    def position_of(self) -> IntArray:
        """For each ``item_idx`` its place in ``positions()``, -1 where it is not eligible."""
        item_of = self.positions()
        places = np.full(len(self.vectors), -1, dtype=np.int64)
        places[item_of] = np.arange(len(item_of))
        return places


@dataclass(frozen=True)
class Tile:
    """Consecutive positions ``start … stop - 1`` of the eligible items, as ``chunks`` chunks of ``width``.

    Its rows of the matrix are ``first … first + width * chunks - 1``: the item at position ``start + p`` is row
    ``first + (p % width) * chunks + p // width``, so that the maxima of all chunks are an element-wise maximum of
    ``width`` contiguous rows of scores.
    """

    start: int
    stop: int
    width: int
    chunks: int
    first: int

    @property
    def size(self) -> int:
        """Rows, with those that fill up the last chunk."""
        return self.width * self.chunks

    def column(self, position: IntArray) -> IntArray:
        """The column of a block of scores that holds a position."""
        local = position - self.start
        return (local % self.width) * self.chunks + local // self.width


@dataclass(frozen=True)
class ItemIndex:
    """The item matrix, laid out for the search."""

    k: int
    rows: int  # queries in a block
    biased: bool
    dim: int
    item_of: IntArray  # position -> item_idx
    position_of: IntArray  # item_idx -> position, -1 where not eligible
    matrix: FloatArray  # [rows of all tiles, dim, one more with a bias]
    row_of: IntArray  # position -> row of the matrix
    norm: float  # the largest of a row
    tiles: tuple[Tile, ...]

    @staticmethod
    def build(items: ItemMatrix, k: int, block_mb: int) -> ItemIndex:
        """Cuts the eligible items into tiles of which a block of scores fits into ``block_mb``."""
        budget = max(1, block_mb * 2**20 // 4)  # scores in a block
        eligible = max(1, len(items.positions()))
        rows = min(MAX_ROWS, max(MIN_ROWS, budget // eligible))
        return ItemIndex.of_tiles(items, k, rows, max(MIN_TILE, budget // rows))

    @staticmethod
    def of_tiles(items: ItemMatrix, k: int, rows: int, tile: int) -> ItemIndex:
        """Leaves out what is not eligible, appends the bias as a column and lays out tiles of so many items."""
        item_of = items.positions()
        tiles, first = [], 0
        for start in range(0, len(item_of), tile):
            tiles.append(_tile(start, min(start + tile, len(item_of)), first, k + MARGIN))
            first += tiles[-1].size
        biased, dim = items.bias is not None, items.vectors.shape[1]
        matrix = np.zeros((first, dim + biased), dtype=np.float32)
        row_of = np.zeros(len(item_of), dtype=np.int64)
        for t in tiles:
            positions = np.arange(t.start, t.stop)
            row_of[t.start : t.stop] = t.first + t.column(positions)
        matrix[row_of, :dim] = items.vectors[item_of]
        if items.bias is not None:
            matrix[row_of, dim] = items.bias[item_of]
        norm = float(np.sqrt(np.einsum("rd,rd->r", matrix, matrix, dtype=np.float64).max(initial=0.0)))
        return ItemIndex(k, rows, biased, dim, item_of, items.position_of(), matrix, row_of, norm, tuple(tiles))

    def scratch(self) -> FloatArray:
        """Memory for a block of scores, to be used again: fresh pages would cost a quarter of the product."""
        return np.empty(self.rows * max((tile.size for tile in self.tiles), default=0), dtype=np.float32)

    def exact(self, vectors: FloatArray, rows: IntArray, positions: IntArray) -> FloatArray:
        """Scores of pairs of a query's row and a position, by a sum whose order depends on the dimension alone."""
        scores = np.empty(len(rows), dtype=np.float32)
        for low in range(0, len(rows), PAIRS_AT_ONCE):
            part = slice(low, low + PAIRS_AT_ONCE)
            scores[part] = np.einsum("md,md->m", vectors[rows[part]], self.matrix[self.row_of[positions[part]]])
        return scores

    def slack(self, vectors: FloatArray) -> npt.NDArray[np.float64]:
        """For each query how far apart two ways to sum up the same score can be, at most; 0 where nothing rounds.

        |fl(Σ q_j x_j) − Σ q_j x_j| ≤ γ_d Σ |q_j x_j| with γ_d = d u / (1 − d u) (Higham, "Accuracy and Stability of
        Numerical Algorithms", 2002, eq. 3.5), and Σ |q_j x_j| ≤ |q| |x|.
        """
        d = vectors.shape[1]
        gamma = 0.0 if d < 2 else 2 * (d + 1) * UNIT
        return gamma * self.norm * np.sqrt(np.einsum("bd,bd->b", vectors, vectors, dtype=np.float64))


def _tile(start: int, stop: int, first: int, n: int) -> Tile:
    # Searching costs size / width + n * width; below a few n the second level would not pay.
    size = stop - start
    width = max(1, round(math.sqrt(size / n))) if size > 8 * n else 1
    return Tile(start, stop, width, -(-size // width), first)


def search_block(
    index: ItemIndex, vectors: FloatArray, rows: IntArray, positions: IntArray, scratch: FloatArray
) -> tuple[FloatArray, IntArray]:
    """The best positions for a block of queries.

    Args:
        index: What is searched.
        vectors: float32 ``[b, d]``, with the column of ones where the index is biased.
        rows: Rows of the pairs to leave out.
        positions: Positions of the pairs to leave out.
        scratch: ``index.scratch()``.

    BLAS finds ``k + MARGIN`` candidates, whose scores are then summed up in an order that depends on nothing else. A
    query is settled by a look at all items that BLAS scores near its last one where the two ways to sum up could differ
    (``ItemIndex.slack``) by as much as what the last candidate is behind.

    Returns:
        Scores float32 and positions int64 ``[b, <= k]``, ordered by ``(-score, position)``; ``-inf`` where a query
        has no further item.
    """
    scores, found = _candidates(index, vectors, rows, positions, scratch)
    slack = index.slack(vectors)
    row, column = np.nonzero(scores > -np.inf)
    exact = np.full_like(scores, -np.inf)
    exact[row, column] = index.exact(vectors, row, found[row, column])
    order = np.lexsort((found, -exact), axis=1)[:, : index.k]
    kept, best = np.take_along_axis(exact, order, axis=1), np.take_along_axis(found, order, axis=1)
    if scores.shape[1] < len(index.item_of):  # there are items beside the candidates, at most as good as the last one
        last = scores[:, -1].astype(np.float64)
        unsure = np.flatnonzero((last > -np.inf) & (slack > 0) & ~(kept[:, -1] > last + slack))
        at_once = max(1, len(scratch) // len(index.matrix))
        for low in range(0, len(unsure), at_once):
            some = unsure[low : low + at_once]
            mine = np.isin(rows, some)
            seen = np.searchsorted(some, rows[mine]), positions[mine]
            kept[some], best[some] = _settle(index, vectors[some], kept[some, -1] - slack[some], *seen, scratch)
    return kept, best


def _candidates(
    index: ItemIndex, vectors: FloatArray, rows: IntArray, positions: IntArray, scratch: FloatArray
) -> tuple[FloatArray, IntArray]:
    """The best ``k + MARGIN`` positions by the scores of BLAS; arguments and results as in ``search_block``."""
    best_scores = [np.empty((len(vectors), 0), dtype=np.float32)]
    best = [np.empty((len(vectors), 0), dtype=np.int64)]
    for tile in index.tiles:
        scores = _tile_scores(index, tile, vectors, rows, positions, scratch)
        tile_scores, found = _search_tile(scores, tile, index.k + MARGIN)
        best_scores.append(tile_scores)
        best.append(found + tile.start)
    if len(best) == 2:
        return best_scores[1], best[1]
    # Among equal scores an earlier tile stands further left and holds smaller positions.
    all_scores, all_found = np.concatenate(best_scores, axis=1), np.concatenate(best, axis=1)
    kept, columns = select(all_scores, index.k + MARGIN)
    return kept, np.take_along_axis(all_found, columns, axis=1)


def _settle(
    index: ItemIndex, vectors: FloatArray, floor: npt.NDArray[np.float64], rows: IntArray, positions: IntArray,
    scratch: FloatArray,
) -> tuple[FloatArray, IntArray]:  # fmt: skip
    """The best ``k`` positions among all that BLAS scores at ``floor`` [b] or higher, ``k`` of them at least."""
    pairs = []
    for tile in index.tiles:
        row, column = np.nonzero(_tile_scores(index, tile, vectors, rows, positions, scratch) >= floor[:, None])
        pairs.append((row, tile.start + column % tile.chunks * tile.width + column // tile.chunks))
    row, position = (np.concatenate(part) for part in zip(*pairs, strict=True))
    scores = index.exact(vectors, row, position)
    order = np.lexsort((position, -scores, row))
    counts = np.bincount(row, minlength=len(vectors))
    if counts.min() < index.k:
        raise InvariantError("fewer items than the list is long reach a score that so many have")
    chosen = order[(np.cumsum(counts) - counts)[:, None] + np.arange(index.k)]
    return scores[chosen], position[chosen]


def _tile_scores(
    index: ItemIndex, tile: Tile, vectors: FloatArray, rows: IntArray, positions: IntArray, scratch: FloatArray
) -> FloatArray:
    """float32 ``[b, tile.size]``, a view of ``scratch``: the scores by BLAS, ``-inf`` for what may not be chosen."""
    scores = scratch[: len(vectors) * tile.size].reshape(len(vectors), tile.size)
    np.matmul(vectors, index.matrix[tile.first : tile.first + tile.size].T, out=scores)
    padding = np.arange(tile.stop, tile.start + tile.size)
    scores[:, tile.column(padding)] = -np.inf
    inside = (positions >= tile.start) & (positions < tile.stop)
    scores[rows[inside], tile.column(positions[inside])] = -np.inf
    return scores


def _search_tile(scores: FloatArray, tile: Tile, k: int) -> tuple[FloatArray, IntArray]:
    """The best ``k`` positions of a tile, counted from its start, and their scores.

    First the best ``k`` chunks by their largest score: what is in another chunk has k scores ahead of it. A chunk is
    ``width`` items in a row, which lie ``chunks`` columns apart (``Tile.column``), so that the maxima are taken over
    whole rows of memory. In the order of the chunks the candidates are in that of the items, as ties are settled by it.
    """
    if tile.width == 1:
        return select(scores, k)
    maxima = scores.reshape(len(scores), tile.width, tile.chunks).max(axis=1)
    chunks = np.sort(select(maxima, k)[1], axis=1)
    # Flat places of the chosen chunks' scores: candidate j * width + r is item chunks[j] * width + r.
    places = chunks[:, :, None] + np.arange(tile.width) * tile.chunks
    places += (np.arange(len(scores)) * scores.shape[1])[:, None, None]
    candidates = scores.ravel().take(places.reshape(len(scores), -1))
    kept, columns = select(candidates, k)
    found = np.take_along_axis(chunks, columns // tile.width, axis=1) * tile.width + columns % tile.width
    return kept, found


def select(scores: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
    """The best ``k`` columns of each row by ``(-score, column)``.

    Args:
        scores: float32 ``[b, m]``; ``-inf`` marks what may not be chosen.
        k: How many; all columns where there are fewer.

    Raises:
        InvariantError: A score is NaN or infinite.
    """
    m = scores.shape[1]
    if m > k:
        order = np.argpartition(scores, (m - k - 1, m - k), axis=1)  # NaN counts as the largest
        columns = np.sort(order[:, m - k :], axis=1)
        kept = np.take_along_axis(scores, columns, axis=1)
        next_best = np.take_along_axis(scores, order[:, m - k - 1 : m - k], axis=1)[:, 0]
        columns = _resolve_ties(scores, columns, kept.min(axis=1), next_best)
    else:
        columns = np.broadcast_to(np.arange(m), scores.shape)
    kept = np.take_along_axis(scores, columns, axis=1)
    if np.isnan(kept).any() or np.isposinf(kept).any():
        raise InvariantError("a score is not finite")
    order = np.argsort(-kept, axis=1, kind="stable")
    return np.take_along_axis(kept, order, axis=1), np.take_along_axis(columns, order, axis=1)


def _resolve_ties(scores: FloatArray, columns: IntArray, worst: FloatArray, next_best: FloatArray) -> IntArray:
    """Where the last chosen score equals the first one left out, chooses the smallest columns among the equal."""
    tied = np.flatnonzero((worst == next_best) & (worst > -np.inf))
    if not len(tied):
        return columns
    rows, limit = scores[tied], worst[tied, None]
    above, equal = rows > limit, rows == limit
    room = columns.shape[1] - above.sum(axis=1, keepdims=True)
    chosen = above | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= room))
    columns[tied] = np.nonzero(chosen)[1].reshape(len(tied), -1)
    return columns
