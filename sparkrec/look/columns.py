"""Numbers of a column: shares, means, bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


def share(holds: pl.Series) -> float:
    """The share of a column's values that are true; of none 0."""
    found: Any = holds.mean()
    return float(found or 0.0)


def mean(numbers: pl.Series) -> float:
    """The mean of a column; of none 0."""
    found: Any = numbers.mean()
    return float(found or 0.0)


def bounds(numbers: pl.Series) -> tuple[float, float]:
    """The least and the greatest value of a column; of none 0."""
    low, high = numbers.min(), numbers.max()
    found: Any = (low or 0.0, high or 0.0)
    return float(found[0]), float(found[1])
