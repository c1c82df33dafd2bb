"""The best items of each query: exactly, or by an index whose recall was measured and is high enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkrec.log import log_event, warn_event
from sparkrec.retrieval.approximate import approximate_index, approximate_top_k, measured_recall
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.retrieval.topk import top_k
from sparkrec.settings.sections import TopKConfig

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def best(
    queries: DataFrame,
    items: ItemMatrix,
    settings: TopKConfig,
    key: tuple[str, ...],
    model: str,
    seen: DataFrame | None = None,
) -> tuple[DataFrame, str]:
    """The lists of queries, by the index that the configuration asks for.

    Args:
        queries: The key columns and ``vector array<float>``; optionally ``seen array<int>``.
        items: What is searched.
        settings: ``topk``.
        key: The columns that the lists keep.
        model: Whose lists they are, for the log.
        seen: See ``retrieval.topk.top_k``.

    Returns:
        ``(key…, item_idx int, rank int, score float)``, and what there is to say about the index.
    """
    note = ""
    if settings.index != "exact":
        index = approximate_index(queries.sparkSession, items, settings)
        recall = measured_recall(queries, items, index, key=key, settings=settings, seen=seen)
        note = f"recall of {settings.index} {recall:.4f}"
        log_event("approximate_index", model=model, index=settings.index, recall=round(recall, 4), k=settings.k)
        if recall >= settings.min_recall:
            return approximate_top_k(queries, index, key=key, k=settings.k, seen=seen), note
        note = f"{note}, below topk.min_recall={settings.min_recall}: exact lists"
        warn_event("approximate_index_refused", model=model, recall=round(recall, 4), min_recall=settings.min_recall)
    lists = top_k(
        queries, items, key=key, k=settings.k, seen=seen, block_mb=settings.block_mb, pass_mb=settings.pass_mb
    )
    return lists, note
