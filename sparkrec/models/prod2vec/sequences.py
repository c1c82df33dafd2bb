"""The sequences that prod2vec and its kin train on, as the flat rows of a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from sparkrec.ranks.snapshot import SnapshotRows
from sparkrec.warehouse.tables import BASKET_ID, ITEMS, SESSION_ID, START_TS, TS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SEQUENCE, ITEM = "sequence", "item"  # columns that the ranks read


def snapshot_rows(sequences: DataFrame) -> SnapshotRows:
    """Baskets or sessions as flat rows, whole sequences to a file.

    Args:
        sequences: Columns of ``tables.COPURCHASE`` or of ``tables.SESSIONS``.

    Returns:
        Rows: sequence bigint (a hash of the basket's or session's id), start bigint (µs), position int (from 0),
        item int.
    """
    key, start = (BASKET_ID, TS) if BASKET_ID in sequences.columns else (SESSION_ID, START_TS)
    rows = sequences.select(
        F.xxhash64(key).alias(SEQUENCE),
        F.unix_micros(start).alias("start"),
        F.posexplode(ITEMS).alias("position", ITEM),
    )
    return SnapshotRows(rows, SEQUENCE, ("start", SEQUENCE, "position"))
