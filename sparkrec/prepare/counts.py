"""Counts of what a transform leaves out, taken while its result is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.observation import Observation

LISTENER_TIMEOUT_MS = 60_000


class Counts:
    """Collects row counts through ``DataFrame.observe``: no second pass over the data.

    Give one to a transform, compute its result once (write it, for example), then call :meth:`get`. Only the first
    action on the result is counted, and a stage that Spark repeats after a lost machine may count twice.
    """

    def __init__(self) -> None:
        self._points: list[tuple[DataFrame, Observation, list[str]]] = []

    def observe(self, rows: DataFrame, /, **aggregates: Column) -> DataFrame:
        """Adds a point of observation; each aggregate is an integer, found under its name in :meth:`get`."""
        from pyspark.sql import Observation, functions

        observation = Observation()
        filled = [functions.coalesce(a, functions.lit(0)).alias(name) for name, a in aggregates.items()]
        self._points.append((rows, observation, list(aggregates)))
        return rows.observe(observation, *filled)

    def get(self) -> dict[str, int]:
        """The counts, after an action on the observed frame; 0 for each point that no row reached.

        Spark removes branches that it knows to be empty together with their observation, hence the 0.
        """
        counts: dict[str, int] = {}
        for rows, observation, names in self._points:
            found = _result(rows, observation)
            counts.update({name: int(found.get(name, 0)) for name in names})
        return counts

    def complete(self) -> bool:
        """Whether the counts of all points are there; else one was removed as empty, or its news got lost."""
        return all(_is_there(rows, observation) for rows, observation, _ in self._points)


def _result(rows: DataFrame, observation: Observation) -> dict[str, Any]:
    # Observation.get waits for ever where the plan turned out empty, so ask first.
    return observation.get if _is_there(rows, observation) else {}


def _is_there(rows: DataFrame, observation: Observation) -> bool:
    """Whether a count has come, once all news has been delivered."""
    rows.sparkSession.sparkContext._jsc.sc().listenerBus().waitUntilEmpty(LISTENER_TIMEOUT_MS)
    return bool(observation._jo.future().isCompleted())  # type: ignore[union-attr]


def observed(rows: DataFrame, counts: Counts | None, **aggregates: Column) -> DataFrame:
    """``rows``, observed where somebody counts."""
    return rows if counts is None else counts.observe(rows, **aggregates)
