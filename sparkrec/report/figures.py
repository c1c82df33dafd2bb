"""Which charts the page has: pure functions from facts to charts."""

from __future__ import annotations

from collections.abc import Sequence

from sparkrec.report.charts import Chart, Series, binned, columns, lines
from sparkrec.report.facts import Calibration, History, Lengths, Losses, Spread


def history_chart(history: History) -> Chart:
    """A model's metric over the nights with the gate's lines; nights without publication have hollow dots."""
    nights = history.nights
    hollow = tuple(n for n, night in enumerate(nights) if not night.published)
    keep = [1 - history.below_popularity, 1 - history.below_last]
    series = [
        Series(history.model, "line1", tuple(n.value for n in nights), hollow),
        Series("recent popularity", "line3", tuple(n.popularity for n in nights)),
        Series("lowest by popularity", "floor1", tuple(_times(n.popularity, keep[0]) for n in nights), dots=False),
        Series("lowest by the last model", "floor2", tuple(_times(n.last, keep[1]) for n in nights), dots=False),
    ]
    labels = [f"{night.run_date:%m-%d}" for night in nights]
    known = [s for s in series if any(v is not None for v in s.values)]
    return lines(known, labels, "night", history.metric, 4, from_zero=True)


def lengths_chart(found: Lengths, what: str, of: str) -> Chart:
    """How many sessions or baskets (``what``) are how long (``of``)."""
    bins = binned(found.counts)
    return columns([Series(what, "fill1", tuple(float(n) for _, n in bins))], [b for b, _ in bins], of, what, 0)


def loss_chart(parts: Sequence[Losses]) -> Chart:
    """The losses of a model's parts by epoch."""
    longest = max(len(part.by_epoch) for part in parts)
    series = [
        Series(part_name(part.part), f"line{n}", part.by_epoch + (None,) * (longest - len(part.by_epoch)))
        for n, part in enumerate(parts, 1)
    ]
    return lines(series, [str(n) for n in range(1, longest + 1)], "epoch", "loss", 4)


def calibration_chart(found: Calibration) -> Chart:
    """What was rated by what was predicted, beside the predictions themselves."""
    series = [
        Series(found.model, "line1", tuple(rating for _, _, rating, _ in found.points)),
        Series("as predicted", "floor1", tuple(predicted for _, predicted, _, _ in found.points), dots=False),
    ]
    labels = [f"{predicted:.2f}" for _, predicted, _, _ in found.points]
    return lines(series, labels, "mean predicted rating", "mean rating", 2)


def spread_chart(spread: Spread) -> Chart:
    """The share of each tenth of the items in the events and in a model's lists."""
    labels = [str(n) for n in range(1, len(spread.by_decile) + 1)]
    series = [
        Series("events", "fill3", tuple(100 * v for v in spread.events)),
        Series(f"lists of {spread.model}", "fill1", tuple(100 * v for v in spread.by_decile)),
    ]
    return columns(series, labels, "tenth of the items by popularity", "share, %", 1)


def part_name(part: str) -> str:
    """What a part of a night's model is called on the page."""
    return {"holdout": "hold-out model", "full": "published model"}.get(part, part)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
