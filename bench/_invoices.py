"""A shop's invoices as training pairs and what is bought after a day, read without Spark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd


def read_invoices(folder: str, cutoff: str, half_life: float | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training pairs ``(user_idx, item_idx, confidence)``, and the new pairs of known customers and products.

    Rows with a customer, a positive quantity and price, and no cancelled invoice count.

    Args:
        folder: CSV day files with InvoiceNo, StockCode, Quantity, InvoiceDate, UnitPrice and CustomerID.
        cutoff: Day from which on rows are the truth.
        half_life: Days in which an earlier row's weight halves, which add up to the pair's confidence; without it
            each pair has 1.
    """
    paths = sorted(Path(folder).glob("*.csv*"))
    rows = pd.concat([pd.read_csv(path, dtype={"InvoiceNo": str, "StockCode": str}) for path in paths])
    bought = rows["CustomerID"].notna() & (rows["Quantity"] > 0) & (rows["UnitPrice"] > 0)
    rows = rows[bought & ~rows["InvoiceNo"].str.startswith("C")].drop_duplicates()
    age = (pd.Timestamp(cutoff) - pd.to_datetime(rows["InvoiceDate"])) / pd.Timedelta(days=1)
    early = age > 0
    users, items = (pd.Index(rows.loc[early, name].unique()).sort_values() for name in ("CustomerID", "StockCode"))
    numbers = {"user_idx": users.get_indexer(rows["CustomerID"]), "item_idx": items.get_indexer(rows["StockCode"])}
    weight = np.exp2(-age / half_life) if half_life else pd.Series(1.0, rows.index)
    events = pd.DataFrame({**numbers, "early": early, "confidence": weight.astype("float32")})
    known = events[(events["user_idx"] >= 0) & (events["item_idx"] >= 0)].astype(dict.fromkeys(numbers, "int32"))
    keys = ["user_idx", "item_idx"]
    pairs = known[known["early"]].groupby(keys, as_index=False)["confidence"].agg("sum" if half_life else "max")
    later = known.loc[~known["early"], keys].drop_duplicates().merge(pairs[keys], how="left", indicator=True)
    return pairs, later.loc[later["_merge"] == "left_only", keys]
