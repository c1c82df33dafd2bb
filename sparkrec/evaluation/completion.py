"""Completion of held-out baskets: each next item, given the items before it, is to be in the list.

There is one relevant item for each case, so recall@k is the share of the cases whose item is among the first k, ndcg@k
1 / log2(rank + 1) and mrr@k 1 / rank of it, 0 beyond k (``sparkrec.evaluation.ranking``, where the formulas stand). A
case without a list is a miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparkrec.errors import InvariantError
from sparkrec.evaluation.gains import GainsBook
from sparkrec.evaluation.ranking import ALL, RankedLists, ranking_metrics
from sparkrec.evaluation.values import MetricValue
from sparkrec.retrieval.topk import SEEN
from sparkrec.warehouse.tables import BASKET_ID, ITEM_IDX, ITEMS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

CASE, NEXT = "case", "next"
METRICS = ("recall", "ndcg", "mrr")


def prefixes(baskets: DataFrame, longest: int | None = None) -> DataFrame:
    """The cases of held-out baskets.

    Args:
        baskets: ``(basket_id string, items array<int>)``, the items distinct and in order; optionally ``seen
            array<int>``: none of these is to be foreseen.
        longest: Items that are given, at most: a longer basket ends after the next one. None: all.

    Returns:
        ``(basket_id string, case string, items array<int>, next int)``, one row for each item but a basket's first; the
        case is ``<basket_id>#<place of the next item, from 1>``.
    """
    import pyspark.sql.functions as F

    last = F.size(ITEMS) if longest is None else F.least(F.size(ITEMS), F.lit(longest + 1))
    places = F.when(last > 1, F.sequence(F.lit(2), last))
    given = [name for name in (BASKET_ID, ITEMS, SEEN) if name in baskets.columns]
    each = baskets.select(*given, F.explode(places).alias("place"))
    if SEEN in given:
        each = each.where(~F.array_contains(SEEN, F.element_at(ITEMS, F.col("place"))))
    return each.select(
        BASKET_ID,
        F.concat_ws("#", BASKET_ID, F.col("place").cast("string")).alias(CASE),
        F.slice(ITEMS, F.lit(1), F.col("place") - 1).alias(ITEMS),
        F.element_at(ITEMS, F.col("place")).alias(NEXT),
    )


def completion_metrics(
    lists: DataFrame,
    cases: DataFrame,
    ks: Sequence[int],
    n_items: int,
    model: str = "completion",
    gains: tuple[GainsBook, str] | None = None,
) -> list[MetricValue]:
    """Recall, ndcg and mrr of the lists at each k, then ``cases_without_list``.

    Args:
        lists: ``(case, item_idx int, rank int from 1)``, as long as the largest k; of ``rules.complete``, for example.
        cases: Of ``prefixes``.
        ks: Cut-offs.
        n_items: Size of the catalogue.
        model: Whose lists they are.
        gains: Where each basket's share of a metric is noted, and under which hold-out.

    Raises:
        InvariantError: There is no case, a case is there twice, a list is of no case, or it holds an item twice.
    """
    import pyspark.sql.functions as F

    strangers = lists.join(cases, CASE, "left_anti").count()
    n, doubled = cases.agg(F.count("*"), F.count("*") - F.count_distinct(CASE)).first()  # type: ignore[misc]
    if strangers or doubled or not n:
        raise InvariantError(f"of {n} cases {doubled} are there twice, and {strangers} rows of lists are of none")
    truth = cases.select(CASE, F.col(NEXT).alias(ITEM_IDX))
    basket = F.regexp_replace(CASE, "#[0-9]+$", "")
    one = {model: RankedLists(lists, n_items)}
    found = ranking_metrics(one, truth, ks, key=CASE, gains=gains, owner=basket)[model][ALL]
    if any(value.n != n for value in found):
        raise InvariantError(f"not all of the {n} cases were judged: {[value.n for value in found]}")
    missing = [MetricValue("cases_without_list", None, v.value, v.n) for v in found if v.metric == "users_without_list"]
    return [value for value in found if value.metric in METRICS] + missing
