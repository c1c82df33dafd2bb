"""Makes the lists of another night current, without Spark or Java."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from sparkrec.reading import night_in, open_table, read_rows, require_known
from sparkrec.store import Warehouse
from sparkrec.tables import CURRENT, MODEL_VERSION, RUN_DATE, lists_table

if TYPE_CHECKING:
    import polars as pl


def rollback(warehouse: Warehouse, to: str, models: Sequence[str] = ()) -> pl.DataFrame:
    """Makes the lists of an earlier (or later) published night current again. No list is changed or removed.

    Args:
        warehouse: Where the tables are.
        to: The night, ``YYYY-MM-DD``.
        models: The models; by default all that ``current`` names.

    Returns:
        The rows of ``current`` after it.

    Raises:
        UserError: A model has no lists of that night; nothing is changed then.
    """
    import polars as pl

    opened = open_table(warehouse, CURRENT)
    known = read_rows(opened, CURRENT, CURRENT.column_names, pl.lit(True))["model"].to_list()
    for model in models:
        require_known("model", model, known)
    chosen = list(models) or known
    versions = {}
    for model in chosen:
        table = lists_table(model)
        lists = open_table(warehouse, table)
        night = night_in(lists, table, to)
        versions[model] = read_rows(lists, table, [MODEL_VERSION], pl.lit(True), night)[MODEL_VERSION][0]
    now = datetime.now(UTC)
    rows = pl.DataFrame(
        [(model, date.fromisoformat(to), version, now) for model, version in versions.items()],
        schema={"model": pl.String, RUN_DATE: pl.Date, MODEL_VERSION: pl.String, "since": pl.Datetime("us", "UTC")},
        orient="row",
    )
    merge = opened.merge(rows, predicate="t.model = s.model", source_alias="s", target_alias="t")
    merge.when_matched_update_all().execute()
    return read_rows(open_table(warehouse, CURRENT), CURRENT, CURRENT.column_names, pl.lit(True)).sort("model")
