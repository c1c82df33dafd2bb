"""Top-K by sparse products: the exact engine of the neighbourhood models, the twin of ``topk``.

``score(query, column) = Σ_row weight(query, row) · value(row, column)``. A query is a list of rows with weights, the
matrix has few entries. It is broadcast once; queries are streamed through ``mapInArrow``; a block of them is one
product of two sparse matrices, of which each query's best columns are selected. Only columns with a score above 0 are
on a list.

Nothing depends on blocks, passes or partitions: a query's entries are put in order of the row, SciPy's product adds
them up in that order, column by column, in double precision, and the sums are rounded to float32 before anything is
compared. Equal scores are ordered by the smaller column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from sparkrec.errors import InvariantError
from sparkrec.processes import begin_task
from sparkrec.retrieval.block_search import MAX_ROWS, FloatArray, IntArray
from sparkrec.retrieval.topk import PASS_MB, list_batch, merged, observed, prepared_queries, seen_positions
from sparkrec.spark.broadcast import broadcast
from sparkrec.spark.collected import collected

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, Observation

INDICES, WEIGHTS = "indices", "weights"
ENTRY_BYTES = 12  # of the matrix: a double and an int32
PAIR_BYTES = 13  # on the way to the driver: two int32, a float and whether they are null
FEWER_PAIRS = "raise prepare.support"
PRODUCT_BYTES = 48  # of an entry of a product, with what is computed from it

Doubles = npt.NDArray[np.float64]
PairScore = Callable[[Doubles, Doubles, IntArray, IntArray], Doubles]


@dataclass(frozen=True)
class SparseMatrix:
    """What is searched; the column's number is the ``item_idx`` of the lists.

    Attributes:
        values: float64 ``[rows, columns]``, finite.
        eligible: bool ``[columns]``, False for a column that no list may hold, or None when all may.
    """

    values: csr_matrix
    eligible: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.values.format != "csr" or self.values.dtype != np.float64:
            raise InvariantError(f"a searched matrix must be CSR of float64, not {self.values.format} "
                                 f"{self.values.dtype}")  # fmt: skip
        if self.eligible is not None and self.eligible.shape != (self.values.shape[1],):
            raise InvariantError(f"eligible of {self.values.shape[1]} columns has shape {self.eligible.shape}")
        if not np.isfinite(self.values.data).all():
            raise InvariantError("a value of the searched matrix is not finite")

    def without(self, excluded: IntArray | None) -> SparseMatrix:
        """The same matrix, some of whose columns no list may hold; numbers beyond the matrix are ignored."""
        if excluded is None or not len(excluded):
            return self
        columns = self.values.shape[1]
        eligible = np.ones(columns, dtype=np.bool_) if self.eligible is None else self.eligible.copy()
        eligible[excluded[excluded < columns]] = False
        return SparseMatrix(self.values, eligible)

    def times(self, factors: FloatArray | None) -> SparseMatrix:
        """The same matrix with every column multiplied by its factor, float32 ``[columns]`` of at least 0."""
        if factors is None:
            return self
        if factors.shape != (self.values.shape[1],) or (factors < 0).any():
            raise InvariantError(f"factors of {self.values.shape[1]} columns are negative or have another shape")
        data = self.values.data * factors[self.values.indices]
        return SparseMatrix(
            csr_matrix((data, self.values.indices, self.values.indptr), self.values.shape), self.eligible
        )

    def positions(self) -> IntArray:
        """The eligible columns, ascending."""
        return np.arange(self.values.shape[1]) if self.eligible is None else np.flatnonzero(self.eligible)


def sparse_matrix(entries: DataFrame, row: str, column: str, value: str, shape: tuple[int, int]) -> csr_matrix:
    """Collects a matrix to the driver, float64, its entries in order of row and column.

    Args:
        entries: One row for each entry, each pair of ``row`` and ``column`` (int) once; ``value`` is a number.
        row: Name of the column of rows.
        column: Name of the column of columns.
        value: Name of the column of values.
        shape: Rows and columns of the matrix.

    Raises:
        UserError: They are more than the driver takes.
        InvariantError: A pair is there twice or outside of the matrix, or a value is null.
    """
    pairs = entries.select(row, column, value)
    table = collected(pairs, PAIR_BYTES, f"pairs of {row} and {column}", FEWER_PAIRS)
    if sum(part.null_count for part in table.columns):
        raise InvariantError(f"an entry of a matrix has no {row}, {column} or {value}")
    rows, columns, values = (table.column(i).to_numpy() for i in range(3))
    if len(rows) and (min(rows.min(), columns.min()) < 0 or rows.max() >= shape[0] or columns.max() >= shape[1]):
        raise InvariantError(f"entries of {row} and {column} are not within {shape[0]} x {shape[1]}")
    matrix = csr_matrix((values.astype(np.float64), (rows, columns)), shape=shape)
    matrix.sort_indices()
    if matrix.nnz < len(rows):
        raise InvariantError(f"{len(rows) - matrix.nnz} pairs of {row} and {column} are there more than once")
    return matrix


def sparse_top_k(
    queries: DataFrame,
    matrix: SparseMatrix,
    *,
    key: str | Sequence[str],
    k: int,
    seen: DataFrame | None = None,
    pair_score: PairScore | None = None,
    block_mb: int = 64,
    pass_mb: int = PASS_MB,
    partitions: int | None = None,
    observation: Observation | None = None,
) -> DataFrame:
    """The best ``k`` columns with a score above 0 of each query, exactly, by ``(-score, column)``.

    A score that is not finite fails the job with an ``InvariantError`` from the worker. A query with fewer than ``k``
    such columns gets fewer rows, one with none gets no row: pass ``observation`` to have them counted.

    Args:
        queries: The key columns, ``indices array<int>`` (rows of the matrix; those beyond it are ignored),
            ``weights array<float>`` or ``array<double>`` of the same length, and optionally ``seen array<int>``: the
            columns to leave out.
        matrix: What is searched; it is broadcast.
        key: The column or columns that identify a query; all are kept in the lists.
        k: Length of the lists.
        seen: ``(key columns or some of them, item_idx)``: pairs to leave out, as for ``topk.top_k``.
        pair_score: Makes the score of a query and a column that have rows in common from the sum (float64 ``[n]``),
            the number of common rows (float64 ``[n]``), the query's number of rows and the column's (int64 ``[n]``);
            by default it is the sum. A sum of 0 stays one.
            It must be an object that pickle takes.
        block_mb: Memory of a block of products, per worker process.
        pass_mb: Memory of the matrix that a worker process holds. Where there is more, the columns are searched in
            passes, and the best of all passes are kept: the lists are the same.
        partitions: Partitions of the queries; four for each core by default.
        observation: As for ``topk.top_k``.

    Returns:
        ``(key…, item_idx int, rank int, score float)``, ranks from 1.
    """
    keys = [key] if isinstance(key, str) else list(key)
    prepared, schema = prepared_queries(queries, seen, keys, partitions, (INDICES, WEIGHTS))
    spark = queries.sparkSession
    indexes = [broadcast(spark, Index.build(part, k, pair_score, block_mb)) for part in in_passes(matrix, pass_mb)]
    passes = [prepared.mapInArrow(_searcher(index, keys), schema) for index in indexes]
    return observed(merged(passes, keys, k), k, observation)


def in_passes(matrix: SparseMatrix, pass_mb: int) -> list[SparseMatrix]:
    """The matrix with its columns cut into parts whose entries take ``pass_mb`` each; at least one part."""
    positions = matrix.positions()
    sizes = np.bincount(matrix.values.indices, minlength=matrix.values.shape[1])[positions]
    runs = cuts(sizes, max(1, pass_mb * 2**20 // ENTRY_BYTES))
    if len(runs) < 2:
        return [matrix]
    parts = []
    for run in runs:
        eligible = np.zeros(matrix.values.shape[1], dtype=np.bool_)
        eligible[positions[run]] = True
        parts.append(SparseMatrix(matrix.values, eligible))
    return parts


def cuts(sizes: IntArray, budget: int, most: int | None = None) -> list[slice]:
    """Cuts things of these sizes into runs of at most ``budget``; a larger thing is alone.

    Args:
        sizes: int ``[n]``.
        budget: The largest sum of a run.
        most: The largest number of things in a run.
    """
    ends, runs, first = np.cumsum(sizes), [], 0
    while first < len(sizes):
        before = ends[first - 1] if first else 0
        stop = max(first + 1, int(np.searchsorted(ends, before + budget, side="right")))
        runs.append(slice(first, stop if most is None else min(stop, first + most)))
        first = runs[-1].stop
    return runs


def block_entries(block_mb: int) -> int:
    """The entries of a block's product that take so much memory."""
    return max(1, block_mb * 2**20 // PRODUCT_BYTES)


def product_blocks(entries: csr_matrix, values: csr_matrix, at_once: int) -> list[slice]:
    """Runs of the rows of ``entries`` whose product with ``values`` surely has no more entries; one larger is alone."""
    totals = np.concatenate([[0], np.cumsum(np.diff(values.indptr)[entries.indices])])
    largest = np.minimum(np.diff(totals[entries.indptr]), values.shape[1])
    return cuts(largest, at_once, MAX_ROWS)


@dataclass(frozen=True)
class Index:
    """The columns of one pass, as they travel to the workers."""

    k: int
    values: csr_matrix  # float64 [rows, positions]
    column_of: IntArray  # position -> column
    position_of: IntArray  # column -> position, -1 where it is not searched
    column_sizes: IntArray  # [positions]
    pair_score: PairScore | None
    at_once: int  # entries of a block's product

    @staticmethod
    def build(matrix: SparseMatrix, k: int, pair_score: PairScore | None = None, block_mb: int = 64) -> Index:
        """Keeps the eligible columns."""
        column_of = matrix.positions()
        whole = matrix.eligible is None
        values = matrix.values if whole else matrix.values.tocsc()[:, column_of].tocsr()
        position_of = np.full(matrix.values.shape[1], -1, dtype=np.int64)
        position_of[column_of] = np.arange(len(column_of))
        sizes = np.bincount(values.indices, minlength=len(column_of))
        at_once = block_entries(block_mb)
        return Index(k, values, column_of, position_of, sizes, pair_score, at_once)


def _searcher(index: Any, keys: list[str]) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """What a worker does with the stream of query batches; ``index`` is a broadcast ``Index``."""

    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        begin_task()
        for batch in batches:
            yield from search_batch(index.value, batch, keys)

    return search


def search_batch(index: Index, batch: pa.RecordBatch, keys: list[str]) -> Iterator[pa.RecordBatch]:
    """Lists of a batch of queries, as rows."""
    entries, sizes = query_entries(batch, index.values.shape[0])
    rows, positions = seen_positions(batch, index.position_of)
    for block in product_blocks(entries, index.values, index.at_once):
        first, last = np.searchsorted(rows, [block.start, block.stop])
        seen = rows[first:last] - block.start, positions[first:last]
        scores, found = search_block(index, entries[block], sizes[block], *seen)
        yield list_batch(batch, keys, block.start, scores, index.column_of[found])


def query_entries(batch: pa.RecordBatch, n_rows: int) -> tuple[csr_matrix, IntArray]:
    """The queries of a batch as float64 ``[n, n_rows]``, entries in order of the row, and their numbers of entries.

    Entries beyond the matrix are left out of it, and counted.

    Raises:
        InvariantError: Lists are null or of different lengths, or a weight is not finite.
    """
    indices, weights = batch.column(INDICES), batch.column(WEIGHTS)
    lengths = np.diff(indices.offsets.to_numpy())
    if indices.null_count or weights.null_count or (lengths != np.diff(weights.offsets.to_numpy())).any():
        raise InvariantError("a query must have as many weights as indices")
    columns, values = indices.flatten(), weights.flatten()
    if columns.null_count or values.null_count:
        raise InvariantError("a query has a null index or weight")
    index = columns.to_numpy().astype(np.int64)
    weight = values.to_numpy().astype(np.float64)
    if not np.isfinite(weight).all():
        raise InvariantError("a query's weight is not finite")
    row = np.repeat(np.arange(len(lengths)), lengths)
    inside = (index >= 0) & (index < n_rows)
    return row_entries(row[inside], index[inside], weight[inside], (len(lengths), n_rows)), lengths


def row_entries(rows: IntArray, columns: IntArray, values: Doubles, shape: tuple[int, int]) -> csr_matrix:
    """A matrix of entries in any order, put in order of row, column and value; equal places stay apart."""
    order = np.lexsort((values, columns, rows))
    ends = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))])
    return csr_matrix((values[order], columns[order], ends), shape=shape)


def search_block(
    index: Index, entries: csr_matrix, sizes: IntArray, rows: IntArray, positions: IntArray
) -> tuple[FloatArray, IntArray]:
    """The best positions for a block of queries.

    Args:
        index: What is searched.
        entries: float64 ``[b, rows]``.
        sizes: int64 ``[b]``: numbers of the queries' entries.
        rows: Queries of the pairs to leave out.
        positions: Positions of the pairs to leave out.

    Returns:
        Scores float32 and positions int64 ``[b, <= k]``, ordered by ``(-score, position)``; ``-inf`` where a query
        has no further position.
    """
    product = entries @ index.values
    if index.pair_score is not None:
        product = _pair_scores(index, entries, sizes, product)
    return best(without_seen(product, rows, positions), index.k)


def without_seen(product: csr_matrix, rows: IntArray, positions: IntArray) -> csr_matrix:
    """The scores of a block, with ``-inf`` for the pairs of rows and positions."""
    if not len(rows):
        return product
    return product + csr_matrix((np.full(len(rows), -np.inf), (rows, positions)), shape=product.shape)


def _pair_scores(index: Index, entries: csr_matrix, sizes: IntArray, product: csr_matrix) -> csr_matrix:
    assert index.pair_score is not None  # the caller's case
    ones = [csr_matrix((np.ones_like(m.data), m.indices, m.indptr), m.shape) for m in (entries, index.values)]
    counts = ones[0] @ ones[1]
    common, row = counts.data, np.repeat(np.arange(product.shape[0]), np.diff(product.indptr))
    if counts.nnz > product.nnz:  # SciPy leaves out sums that are 0
        width = product.shape[1]
        row_of_count = np.repeat(np.arange(product.shape[0]), np.diff(counts.indptr))
        common = common[np.isin(row_of_count * width + counts.indices, row * width + product.indices)]
    if len(common) != product.nnz:
        raise InvariantError("two products of matrices with the same entries have different ones")
    scores = index.pair_score(product.data, common, sizes[row], index.column_sizes[product.indices])
    return csr_matrix((scores, product.indices, product.indptr), product.shape)


def best(product: csr_matrix, k: int) -> tuple[FloatArray, IntArray]:
    """The best ``k`` columns of each row among those above 0, by ``(-score, column)``.

    Args:
        product: float64 ``[b, n]``; columns of a row in any order.
        k: How many.

    Returns:
        Scores float32 and columns int64 ``[b, <= k]``; ``-inf`` where a row has no further column.

    Raises:
        InvariantError: A score is NaN or infinite.
    """
    rows, entries = best_entries(product, k)
    place = _places(rows, product.shape[0])
    kept = np.full((product.shape[0], int(place.max(initial=-1)) + 1), -np.inf, dtype=np.float32)
    found = np.zeros(kept.shape, dtype=np.int64)
    kept[rows, place], found[rows, place] = product.data[entries], product.indices[entries]
    return kept, found


def best_entries(product: csr_matrix, k: int) -> tuple[IntArray, IntArray]:
    """As ``best``: the rows of the chosen entries, ascending, and their places in ``product.data``, the best first."""
    with np.errstate(over="ignore"):
        scores = product.data.astype(np.float32)
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise InvariantError("a score is not finite")
    ends, floor = product.indptr, np.zeros(product.shape[0], dtype=np.float32)
    for row in np.flatnonzero(np.diff(ends) > k):
        floor[row] = np.partition(scores[ends[row] : ends[row + 1]], -k)[-k]
    row_of = np.repeat(np.arange(product.shape[0]), np.diff(ends))
    chosen = np.flatnonzero((scores >= floor[row_of]) & (scores > 0))  # with all that tie for the last place
    ordered = chosen[np.lexsort((product.indices[chosen], -scores[chosen], row_of[chosen]))]
    kept = ordered[_places(row_of[ordered], product.shape[0]) < k]
    return row_of[kept], kept


def _places(rows: IntArray, n_rows: int) -> IntArray:
    """The place of each among those of its row, from 0; rows ascending."""
    counts = np.bincount(rows, minlength=n_rows)
    return np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
