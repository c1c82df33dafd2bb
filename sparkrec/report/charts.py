"""Charts as inline SVG, drawn by pygal. Their colours are the page's: a series has a CSS class, not a colour.

What pygal writes into a file of its own is taken out: its style, its script, the date, and what this script would show.
So the same numbers are the same bytes, and what a mark says is its ``<title>``, which browsers show by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, tostring

import pygal
from markupsafe import Markup
from pygal.style import Style

from sparkrec.report.texts import visible

_FONT = 11  # px, as in the page's style
_LABELS = 12  # below the x axis, at most
_PLOT = 390  # px, its width
_TINY = 1e-300  # below it, steps cannot be told apart
_LAYOUT: dict[str, Any] = {
    "width": 460, "height": 210, "margin": 6, "margin_right": 20, "spacing": 6, "dots_size": 3, "truncate_label": -1,
    "style": Style(label_font_size=_FONT, major_label_font_size=_FONT, title_font_size=_FONT, font_family="sans-serif"),
    "show_minor_x_labels": False, "show_legend": False, "allow_interruptions": True,
}  # fmt: skip
_HIDDEN = ("defs", "desc")  # tags
_UNUSED = ("background", "plot text-overlay", "plot tooltip-overlay")  # classes


@dataclass(frozen=True)
class Series:
    """A line or a set of columns.

    Attributes:
        name: In the legend and in tooltips.
        style: CSS class of its colour and stroke.
        values: One for each place on the x axis; None leaves a gap.
        hollow: The places whose dot is hollow.
        dots: Whether there are dots; a value without a neighbour to draw a line to has one.
    """

    name: str
    style: str
    values: tuple[float | None, ...]
    hollow: tuple[int, ...] = ()
    dots: bool = True


@dataclass(frozen=True)
class Chart:
    """A chart, and what its legend names.

    Attributes:
        svg: Of class ``chart``.
        series: In the legend's order.
    """

    svg: Markup
    series: tuple[Series, ...]


def lines(
    series: Sequence[Series],
    labels: Sequence[str],
    x_title: str,
    y_title: str,
    digits: int,
    from_zero: bool = False,
) -> Chart:
    """Lines over common places.

    Args:
        series: The lines, the one in front first.
        labels: Of the places on the x axis.
        x_title: What the places are.
        y_title: What the values are, and their unit.
        digits: Decimals in the tooltips.
        from_zero: Whether the y axis begins at 0 whatever the values.
    """
    lowest = 0.0 if from_zero else min(_finite(series), default=0.0)
    axis = ticks(lowest, max(_finite(series), default=1.0))
    return _drawn(pygal.Line(**_LAYOUT), axis, series, labels, x_title, y_title, digits)


def columns(series: Sequence[Series], labels: Sequence[str], x_title: str, y_title: str, digits: int) -> Chart:
    """Columns from 0, side by side at each place; arguments as of ``lines``."""
    axis = ticks(0.0, max(_finite(series), default=1.0) or 1.0)
    return _drawn(pygal.Bar(**_LAYOUT), axis, series, labels, x_title, y_title, digits)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers, equally far apart, from at most ``low`` to at least ``high``: 2 to about ``most`` of them."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return [0.0, 1.0]
    size = max(abs(low), abs(high))
    size = size if size > _TINY else 1.0
    span = high - low if high - low > 1e-9 * size else size  # closer than that they read as one number
    low = 0.0 if 0 < low < span else low  # near enough to 0 to begin there
    span = max(high - low, span)
    power = 10.0 ** math.floor(math.log10(span / most))
    for step in (s * power for s in (1, 2, 5, 10, 20)):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        last = max(last, first + 1)
        if last - first < most:
            break
    return [n * step for n in range(first, last + 1)]


def binned(counts: Sequence[tuple[int, int]], most: int = 24) -> list[tuple[str, int]]:
    """A histogram of whole numbers, with at most ``most`` bins and the long tail in the last.

    Args:
        counts: (number, how often), ascending.
        most: Bins at most.

    Returns:
        (label, how often) of each bin: ``7``, ``5–9`` or ``≥ 40``.
    """
    if not counts:
        return []
    total, passed, cap = sum(n for _, n in counts), 0, counts[-1][0]
    for value, n in counts:
        passed += n
        if passed >= 0.99 * total:
            cap = value
            break
    first = counts[0][0]
    width = max(1, math.ceil((cap - first + 1) / most))
    n_bins = math.ceil((cap - first + 1) / width)
    bins = [0] * n_bins
    for value, n in counts:
        bins[min((value - first) // width, n_bins - 1)] += n
    starts = [first + i * width for i in range(n_bins)]
    ends = [min(s + width - 1, counts[-1][0]) for s in starts]
    labels = [str(s) if s == end else f"{s}–{end}" for s, end in zip(starts, ends, strict=True)]
    if counts[-1][0] > starts[-1] + width - 1:
        labels[-1] = f"≥ {starts[-1]}"
    return list(zip(labels, bins, strict=True))


def shown_labels(labels: Sequence[str]) -> list[int]:
    """The places whose labels are written: equally far apart, the last one among them, and none too wide."""
    if not labels:
        return []
    widest = max(len(label) for label in labels)
    room = max(2, min(_LABELS, int(_PLOT / (6.6 * widest + 14))))
    step = math.ceil(len(labels) / room)
    return list(range((len(labels) - 1) % step, len(labels), step))


def _finite(series: Sequence[Series]) -> list[float]:
    return [v for one in series for v in one.values if v is not None and math.isfinite(v)]


def _drawn(
    chart: Any, axis: list[float], series: Sequence[Series], labels: Sequence[str],
    x_title: str, y_title: str, digits: int,
) -> Chart:  # fmt: skip
    chart.x_labels, chart.x_labels_major = labels, [labels[at] for at in shown_labels(labels)]
    chart.y_labels, chart.range = axis, (axis[0], axis[-1])
    chart.x_title, chart.y_title = x_title, y_title
    decimals = max(0, -math.floor(math.log10(axis[1] - axis[0]) + 1e-9))
    chart.value_formatter = lambda value: f"{value:,.{decimals}f}"
    drawn = series[::-1] if isinstance(chart, pygal.Line) else series  # lines lie over those before
    for one in drawn:
        chart.add(one.name, [_mark(one, at, label, digits) for at, label in enumerate(labels)])
    root = _kept(chart.render_tree(), [one.style for one in drawn])
    root.attrib = {"viewBox": root.attrib["viewBox"], "class": "chart", "role": "img"}
    root.set("aria-label", f"{y_title} by {x_title}")
    return Chart(Markup(tostring(root, encoding="unicode")), tuple(series))


def _mark(one: Series, at: int, label: str, digits: int) -> dict[str, Any] | None:
    """A value as pygal takes it, with what it says, and how its dot looks."""
    value = one.values[at]
    if value is None or not math.isfinite(value):
        return None
    alone = all(one.values[near] is None for near in (at - 1, at + 1) if 0 <= near < len(one.values))
    dot: dict[str, Any] = {"class": "dot hollow" if at in one.hollow else "dot"}
    if not (one.dots or alone):
        dot = {"r": 0}
    return {"value": value, "tooltip": visible(f"{one.name}, {label}: {value:,.{digits}f}"), "node": dot}


def _kept(node: Any, styles: Sequence[str], in_mark: bool = False) -> Element:
    """What is drawn of pygal's tree, of lxml where that is installed; the series have their classes."""
    kept = Element(node.tag, dict(node.attrib))
    kept.text = node.text
    kind = node.get("class", "")
    if kind.startswith("series"):
        kept.set("class", f"series {styles[int(kind.rpartition('-')[2])]}")
    in_mark = in_mark or kind in ("dots", "bar")  # whose title stays
    for child in node:
        said = child.tag == "title" and not in_mark
        if isinstance(child.tag, str) and not said and child.tag not in _HIDDEN and child.get("class") not in _UNUSED:
            kept.append(_kept(child, styles, in_mark))
    return kept
