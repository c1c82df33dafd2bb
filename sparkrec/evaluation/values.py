"""What an evaluation returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MetricValue:
    """A metric: its name, the list length that it is for (None: none), its value, and how many were judged."""

    metric: str
    k: int | None
    value: float
    n: int
