"""Frequent itemsets of baskets on Spark: sets of items that at least so many baskets hold.

Two miners, which find the same sets:

``fp_growth``   MLlib's FP-Growth (Han, Pei and Yin, "Mining Frequent Patterns without Candidate Generation", SIGMOD
                2000, in parallel by Li et al., "PFP: Parallel FP-Growth for Query Recommendation", RecSys 2008). It
                has no bound on the length of a set: it walks them all, also where only short ones are asked for.
``level_wise``  Sets up to a length and no longer (Agrawal and Srikant, "Fast Algorithms for Mining Association Rules",
                VLDB 1994). The baskets are divided as in PFP: a set belongs to its least frequent item, and the task of
                that item is given the more frequent items of its baskets. There a product of matrices counts all pairs
                of items beside it at once, then beside each of these, and so on.

Both are refused before they start where they would run away (``refuse_too_many``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sparkrec.errors import InvariantError, NothingToTrain, UserError
from sparkrec.log import log_event
from sparkrec.models.rules.settings import RulesConfig
from sparkrec.processes import begin_task
from sparkrec.spark.broadcast import broadcast
from sparkrec.warehouse.tables import ITEM_IDX, ITEMS

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

N_BASKETS = "n_baskets"
GROUPS_PER_CORE = 4  # tasks of the level-wise miner
PROBES = 8  # random walks from each item, of the estimate
SEED = 1
DENSE = 1 << 22  # cells of a matrix that is multiplied as a dense one

IntArray = npt.NDArray[np.int64]
Matrix = Any  # float64 [baskets, items] of zeros and ones: a numpy array, or scipy's csr_matrix where it is large


@dataclass(frozen=True)
class Baskets:
    """Baskets as the miners read them.

    Attributes:
        rows: ``(items array<int>, …)``: the frequent items of each basket, the most frequent first; persisted.
        frequent: The frequent items (``item_idx``), the most frequent first, equal ones by number.
        n_baskets: All baskets, those without a frequent item too.
        minimum: Baskets that a frequent set is in, at least.
        sizes: Items → baskets with so many.
        left_out: What was left out: ``rare_entries`` (an entry is an item in a basket), and of the baskets longer than
            the limit ``cut_baskets`` and ``cut_entries``.
    """

    rows: DataFrame
    frequent: IntArray
    n_baskets: int
    minimum: int
    sizes: dict[int, int]
    left_out: dict[str, int]


def prepared(baskets: DataFrame, config: RulesConfig) -> Baskets:
    """Takes rare items out, and all but the most frequent ones of long baskets. Unpersist ``rows`` at the end.

    Args:
        baskets: ``(items array<int>)``, the items of a basket distinct and not null.
        config: The minimum support, and the most items of a basket.

    Raises:
        UserError: There are no baskets.
        InvariantError: A basket holds an item twice.
    """
    import pyspark.sql.functions as F
    from pyspark import StorageLevel

    n_baskets = baskets.count()
    if not n_baskets:
        raise NothingToTrain(
            "no baskets to find rules in", where="copurchase", fix="check prepare.baskets and the format"
        )
    minimum = minimum_baskets(config.min_support, n_baskets)
    items, counts = item_counts(baskets)
    order = np.lexsort((items, -counts))
    frequent = items[order][counts[order] >= minimum]
    rows = _cut(baskets, frequent, config.max_basket_items).persist(StorageLevel.MEMORY_AND_DISK)
    found = rows.groupBy(F.size(ITEMS).alias("size")).agg(
        F.count("*").alias("n"),
        F.sum("rare").alias("rare"),
        F.count_if(F.col("cut") > 0).alias("long"),
        F.sum("cut").alias("cut"),
    )
    table = found.collect()
    left_out = {
        name: sum(row[column] for row in table)
        for name, column in (("rare_entries", "rare"), ("cut_baskets", "long"), ("cut_entries", "cut"))
    }
    return Baskets(rows, frequent, n_baskets, minimum, {r["size"]: r["n"] for r in table}, left_out)


def minimum_baskets(min_support: float, n_baskets: int) -> int:
    """The smallest number of baskets whose share is ``min_support`` or more; 2 at least: one basket is no pattern."""
    least = math.ceil(min_support * n_baskets)
    if least and (least - 1) / n_baskets >= min_support:  # the product was rounded up
        least -= 1
    return max(2, least)


def item_counts(baskets: DataFrame) -> tuple[IntArray, IntArray]:
    """The items of the baskets, ascending, and how many baskets each is in."""
    import pyspark.sql.functions as F

    each = baskets.select(F.explode(ITEMS).alias(ITEM_IDX)).groupBy(ITEM_IDX)
    table = each.agg(F.count("*").alias(N_BASKETS)).toArrow()
    items, counts = (table.column(name).to_numpy().astype(np.int64) for name in (ITEM_IDX, N_BASKETS))
    order = np.argsort(items)
    return items[order], counts[order]


def _places(frequent: IntArray) -> IntArray:
    """``item_idx`` → place among the frequent items, -1 for a rare one; one longer than the largest frequent item."""
    places = np.full(int(frequent.max(initial=-1)) + 2, -1, dtype=np.int64)
    places[frequent] = np.arange(len(frequent))
    return places


def _cut(baskets: DataFrame, frequent: IntArray, limit: int) -> DataFrame:
    """``(items array<int>, rare int, cut int)``: the ``limit`` most frequent items, and how many were left out."""
    shared = broadcast(baskets.sparkSession, (frequent, _places(frequent)))

    def cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        begin_task()
        item_of, places = shared.value
        for batch in batches:
            lists, n = batch.column(ITEMS), len(batch)
            rows, at = list_entries(lists)
            place = places[np.minimum(at, len(places) - 1)]
            order = np.lexsort((place, rows))
            rows, place = rows[order], place[order]
            if np.any((rows[1:] == rows[:-1]) & (place[1:] == place[:-1]) & (place[1:] >= 0)):
                raise InvariantError("a basket holds an item twice")
            known = place >= 0
            rare = np.bincount(rows[~known], minlength=n)
            rows, place = rows[known], place[known]
            sizes = np.bincount(rows, minlength=n)
            kept = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes) < limit
            short = list_column(item_of[place[kept]], np.minimum(sizes, limit))
            counts = [pa.array(c.astype(np.int32)) for c in (rare, np.maximum(sizes - limit, 0))]
            yield pa.RecordBatch.from_arrays([short, *counts], names=[ITEMS, "rare", "cut"])

    return baskets.select(ITEMS).mapInArrow(cut, f"{ITEMS} array<int>, rare int, cut int")


def list_entries(lists: pa.Array) -> tuple[IntArray, IntArray]:
    """The elements of a column of lists of integers: the row of each, ascending, and its value."""
    import pyarrow.compute as pc

    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    return np.repeat(np.arange(len(lists)), lengths), values


def list_column(values: IntArray, lengths: IntArray) -> pa.Array:
    """A column of lists of int32 from their elements and lengths."""
    import pyarrow as pa

    ends = np.concatenate([[0], np.cumsum(lengths)])
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(values.astype(np.int32)))


def itemsets(baskets: Baskets, longest: int, miner: str) -> DataFrame:
    """The frequent sets of 2 to ``longest`` items.

    Args:
        baskets: Of ``prepared``.
        longest: Items of a set, at most.
        miner: ``level_wise`` or ``fp_growth``.

    Returns:
        ``(items array<int>, n_baskets bigint)``, the items ascending.
    """
    return _level_wise(baskets, longest) if miner == "level_wise" else _fp_growth(baskets, longest)


def _fp_growth(baskets: Baskets, longest: int) -> DataFrame:
    import pyspark.sql.functions as F
    from pyspark.ml.fpm import FPGrowth

    # MLlib takes ceil(minSupport * baskets) as the minimum: half a basket less leaves no doubt about the rounding.
    share = (baskets.minimum - 0.5) / baskets.n_baskets
    parts = baskets.rows.sparkSession.sparkContext.defaultParallelism
    found = FPGrowth(itemsCol=ITEMS, minSupport=share, numPartitions=parts).fit(baskets.rows).freqItemsets
    sets = found.where(F.size(ITEMS).between(2, longest))
    return sets.select(F.array_sort(ITEMS).alias(ITEMS), F.col("freq").alias(N_BASKETS))


def _level_wise(baskets: Baskets, longest: int) -> DataFrame:
    rows, n_groups = _conditional(baskets)
    minimum = baskets.minimum
    shared = broadcast(rows.sparkSession, (baskets.frequent, _places(baskets.frequent)))

    def mine(key: tuple[Any, ...], table: pa.Table) -> pa.Table:
        import pyarrow as pa

        item_of, places = shared.value
        columns = []
        with _own_threads():
            for last, matrix in _own_baskets(table, places, len(item_of), key[0].as_py(), n_groups, item_of):
                for sets, counts in grown(matrix, last, minimum, longest):
                    lists = list_column(np.sort(item_of[sets], axis=1).ravel(), np.full(len(sets), sets.shape[1]))
                    columns.append(pa.Table.from_arrays([lists, pa.array(counts)], names=[ITEMS, N_BASKETS]))
        empty = pa.schema([(ITEMS, pa.list_(pa.int32())), (N_BASKETS, pa.int64())]).empty_table()
        return pa.concat_tables([empty, *columns]).combine_chunks()

    return rows.groupBy("group").applyInArrow(mine, f"{ITEMS} array<int>, {N_BASKETS} bigint")


def _conditional(baskets: Baskets) -> tuple[DataFrame, int]:
    """``(group, items)``: each basket up to the last of its items of the group, for each group; and their number.

    Items stand in a basket from the most frequent one on. An item is of the group ``item_idx % number``. Sets whose
    least frequent item is of the group lie in these rows: of a basket 4 7 2 9 and two groups that of even items gets
    4 7 2, that of odd ones the whole.
    """
    import pyspark.sql.functions as F

    n_groups = GROUPS_PER_CORE * baskets.rows.sparkSession.sparkContext.defaultParallelism
    group_of = F.transform(ITEMS, lambda item: item % n_groups)
    each = baskets.rows.select(ITEMS, group_of.alias("groups"))
    each = each.select(ITEMS, "groups", F.explode(F.array_distinct("groups")).alias("group"))
    length = F.size(ITEMS) - F.array_position(F.reverse("groups"), F.col("group")) + 1
    rows = each.select("group", F.slice(ITEMS, F.lit(1), length.cast("int")).alias(ITEMS))
    return rows.where(F.size(ITEMS) > 1), n_groups


def _own_threads() -> Any:
    """As many threads of BLAS as the task has cores."""
    from pyspark import TaskContext
    from threadpoolctl import threadpool_limits

    begin_task()
    context = TaskContext.get()
    return threadpool_limits(limits=context.cpus() if context else 1)


def _own_baskets(
    table: pa.Table, places: IntArray, n_items: int, group: int, n_groups: int, item_of: IntArray
) -> Iterator[tuple[int, Matrix]]:
    """For each item of the group its place, and its baskets as a matrix of the items before that place."""
    rows, items = list_entries(table.column(ITEMS).combine_chunks())
    entries = np.ones(len(rows)), (rows, places[items])
    by_row = sparse.csr_matrix(entries, shape=(len(table), n_items))
    by_item = by_row.tocsc()
    for last in np.flatnonzero(item_of % n_groups == group).tolist():
        own = by_item.indices[by_item.indptr[last] : by_item.indptr[last + 1]]
        if len(own) and last:
            yield last, by_row[own][:, :last]


def grown(matrix: Matrix, last: int, minimum: int, longest: int) -> Iterator[tuple[IntArray, IntArray]]:
    """The frequent sets of 2 to ``longest`` places of which ``last`` is the largest.

    Args:
        matrix: The baskets that hold ``last``: ``[baskets, last]``, ones where a basket holds the place.
        last: The place.
        minimum: Baskets that a frequent set is in, at least.
        longest: Items of a set, at most.

    Yields:
        Sets int64 ``[n, size]``, ascending, and the number of baskets of each int64 ``[n]``.
    """
    counts = _column_sums(matrix)
    beside = np.flatnonzero(counts >= minimum)
    if not len(beside):
        return
    yield np.column_stack([beside, np.full(len(beside), last)]), counts[beside]
    if longest > 2 and len(beside) > 1:
        yield from _grown(_dense_if_small(matrix[:, beside]), beside, (last,), minimum, longest - 2)


def _grown(
    matrix: Matrix, places: IntArray, behind: tuple[int, ...], minimum: int, more: int
) -> Iterator[tuple[IntArray, IntArray]]:
    """As ``grown``: sets of two of the columns' places and ``behind``, then with up to ``more`` - 1 before them."""
    together = _together(matrix)
    for column in range(1, len(places)):
        before = np.flatnonzero(together[:column, column] >= minimum)
        if not len(before):
            continue
        tail = (int(places[column]), *behind)
        yield np.column_stack([places[before], np.tile(tail, (len(before), 1))]), together[before, column]
        if more > 1 and len(before) > 1:
            holding = _rows_with(matrix, column)[:, before]
            yield from _grown(_dense_if_small(holding), places[before], tail, minimum, more - 1)


def _column_sums(matrix: Matrix) -> IntArray:
    sums: IntArray = np.asarray(matrix.sum(axis=0)).ravel().astype(np.int64)
    return sums


def _together(matrix: Matrix) -> IntArray:
    """How many rows hold each two of the columns: int64 ``[m, m]``; doubles count exactly up to 2^53."""
    product = matrix.T @ matrix
    counts: IntArray = (product.toarray() if sparse.issparse(product) else product).astype(np.int64)
    return counts


def _rows_with(matrix: Matrix, column: int) -> Matrix:
    chosen = matrix[:, [column]]
    return matrix[np.flatnonzero(chosen.toarray() if sparse.issparse(chosen) else chosen)]


def _dense_if_small(matrix: Matrix) -> Matrix:
    return matrix.toarray() if sparse.issparse(matrix) and np.prod(matrix.shape) <= DENSE else matrix


def most_itemsets(baskets: Baskets, longest: int) -> list[int]:
    """How many frequent sets of 2, 3, … ``longest`` items there can be, at most.

    A basket of L items holds C(L, k) sets of k items, and each frequent one is in ``minimum`` baskets or more: there
    are at most Σ C(L, k) / minimum. Of n frequent items there are at most C(n, k).
    """
    n = len(baskets.frequent)
    return [
        min(math.comb(n, k), sum(m * math.comb(size, k) for size, m in baskets.sizes.items()) // baskets.minimum)
        for k in range(2, longest + 1)
    ]


def estimated_itemsets(baskets: Baskets, longest: int, probes: int = PROBES) -> list[float]:
    """About how many frequent sets of 2, 3, … ``longest`` items there are: pairs exactly, longer ones by random walks.

    A walk adds one of the items that keep the set frequent, each with the same chance; the product of their numbers on
    the way is an unbiased estimate of the number of sets of a length (Knuth, "Estimating the Efficiency of Backtrack
    Programs", Mathematics of Computation 29, 1975). The same walks are taken on each run.

    Args:
        baskets: Of ``prepared``.
        longest: Items of a set, at most.
        probes: Walks from each item.
    """
    import pyspark.sql.functions as F

    rows, n_groups = _conditional(baskets)
    minimum = baskets.minimum
    shared = broadcast(rows.sparkSession, (baskets.frequent, _places(baskets.frequent)))

    def walk(key: tuple[Any, ...], table: pa.Table) -> pa.Table:
        import pyarrow as pa

        item_of, places = shared.value
        totals = np.zeros(longest + 1)
        with _own_threads():
            for last, matrix in _own_baskets(table, places, len(item_of), key[0].as_py(), n_groups, item_of):
                for size, number in walked(matrix, last, minimum, longest, probes):
                    totals[size] += number
        return pa.table({"size": pa.array(np.arange(longest + 1)), "number": pa.array(totals)})

    found = rows.groupBy("group").applyInArrow(walk, "size bigint, number double")
    by_size = {
        row["size"]: row["number"] for row in found.groupBy("size").agg(F.sum("number").alias("number")).collect()
    }
    return [by_size.get(k, 0.0) for k in range(2, longest + 1)]


def walked(matrix: Matrix, last: int, minimum: int, longest: int, probes: int) -> Iterator[tuple[int, float]]:
    """``(size, number)`` pairs: their sum by size estimates how many sets ``grown`` would find of each size."""
    beside = np.flatnonzero(_column_sums(matrix) >= minimum)
    yield 2, float(len(beside))
    if longest < 3 or len(beside) < 2:
        return
    first, random = _dense_if_small(matrix[:, beside]), np.random.default_rng((SEED, last))
    for _ in range(probes):
        within, weight, size = first, 1.0 / probes, 2
        while size < longest and within.shape[1] > 1:
            column = int(random.integers(within.shape[1]))
            weight *= within.shape[1]
            before = _rows_with(within, column)[:, :column]
            within = before[:, np.flatnonzero(_column_sums(before) >= minimum)]
            size += 1
            yield size, weight * within.shape[1]


def refuse_too_many(baskets: Baskets, config: RulesConfig) -> None:
    """Refuses settings that would make more than ``max_rules`` candidates, before anything is mined.

    A set of k items makes k candidates, one for each item as the consequent. What cannot be more by ``most_itemsets``
    passes at once; otherwise the number is estimated (``estimated_itemsets``).

    Raises:
        UserError: There would be too many; it says what to change.
    """
    longest, miner = config.max_itemset, config.miner
    if miner == "fp_growth":  # it walks the longer ones too
        longest = max([2, *baskets.sizes])
    if _candidates(most_itemsets(baskets, longest))[-1] <= config.max_rules:
        return
    expected = _candidates(estimated_itemsets(baskets, longest))
    log_event("rules_estimate", miner=miner, candidates=round(expected[-1]), max_rules=config.max_rules)
    if expected[-1] <= config.max_rules:
        return
    fits = [k for k, number in enumerate(expected, 2) if number <= config.max_rules]
    fix = "raise rules.min_support, or lower rules.max_basket_items"
    if miner == "fp_growth" and len(fits) >= config.max_itemset - 1:
        fix = f"set rules.miner=level_wise, which walks no longer sets than rules.max_itemset, or {fix}"
    elif miner == "level_wise" and fits:
        fix = f"set rules.max_itemset={fits[-1]}, or {fix}"
    raise UserError(
        f"these settings would make about {expected[-1]:,.0f} candidates for rules, more than rules.max_rules",
        where=f"rules.min_support={config.min_support}, {baskets.minimum} of {baskets.n_baskets} baskets",
        fix=fix,
    )


def _candidates(itemsets_of_size: Sequence[float]) -> list[float]:
    """Candidates for rules up to each length: sets of k items, from 2 on, make k each."""
    return list(accumulate(k * number for k, number in enumerate(itemsets_of_size, 2)))
