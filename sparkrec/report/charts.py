"""Charts as inline SVG: pure functions from numbers to markup. Colours are classes, so the page's style decides.

Every chart is as wide as its column; the numbers behind a mark are its tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparkrec.report.markup import Markup, element

WIDTH, HEIGHT = 460, 210
RIGHT, TOP, BOTTOM = 10, 10, 38
_LEFT = 52  # at least, before the plot
_TITLE = 18  # of that, the y axis's title
_DIGIT = 7  # the widest digit of the page's fonts at the size of a tick
_LABELS = 6  # below the x axis, at most
_TINY = 1e-300  # below it, steps cannot be told apart


@dataclass(frozen=True)
class Series:
    """A line or a set of columns.

    Attributes:
        name: In the legend and in tooltips.
        style: CSS class of its colour and stroke.
        values: One for each place on the x axis; None leaves a gap.
        hollow: The places whose dot is hollow.
        dots: Whether there are dots.
    """

    name: str
    style: str
    values: tuple[float | None, ...]
    hollow: tuple[int, ...] = ()
    dots: bool = True


def lines(
    series: Sequence[Series],
    labels: Sequence[str],
    x_title: str,
    y_title: str,
    digits: int,
    from_zero: bool = False,
) -> Markup:
    """Lines over common places, with a legend.

    Args:
        series: The lines, the one in front first.
        labels: Of the places on the x axis.
        x_title: What the places are.
        y_title: What the values are, and their unit.
        digits: Decimals in the tooltips.
        from_zero: Whether the y axis begins at 0 whatever the values.
    """
    values = [v for s in series for v in s.values if v is not None]
    lowest = 0.0 if from_zero else min(values, default=0.0)
    plot = _Plot(tuple(ticks(lowest, max(values, default=1.0))))
    marks = [_line(one, labels, plot, digits) for one in reversed(series)]
    body = [*_frame(plot, labels, plot.centres(len(labels), inset=0), x_title, y_title), *marks]
    return _figure(series, body, f"{y_title} by {x_title}")


def columns(series: Sequence[Series], labels: Sequence[str], x_title: str, y_title: str, digits: int) -> Markup:
    """Columns from 0, side by side at each place, with a legend where there are several; arguments as of ``lines``."""
    plot = _Plot(tuple(ticks(0.0, max([v for s in series for v in s.values if v is not None], default=1.0) or 1.0)))
    step = (WIDTH - plot.left - RIGHT) / max(len(labels), 1)
    width = step * 0.82 / len(series)
    centres = plot.centres(len(labels), inset=step / 2)
    marks = []
    for n, one in enumerate(series):
        for at, value in enumerate(one.values):
            top = plot.y(value or 0.0)
            tip = element("title", f"{one.name}, {x_title} {labels[at]}: {value or 0.0:,.{digits}f}")
            x = centres[at] - width * len(series) / 2 + n * width
            marks.append(
                element("rect", tip, class_=one.style, x=_px(x), y=_px(top), width=_px(max(width - 0.5, 0.5)),
                        height=_px(HEIGHT - BOTTOM - top))
            )  # fmt: skip
    return _figure(series, [*_frame(plot, labels, centres, x_title, y_title), *marks], f"{y_title} by {x_title}")


def bar(value: float, largest: float, style: str) -> Markup:
    """A horizontal bar for a cell of a table: as long as ``value`` is of ``largest``."""
    length = 100 * value / largest if largest > 0 else 0.0
    rect = element("rect", class_=style, x=0, y=0, width=_px(max(length, 0.4)), height=10) if value else None
    return element(
        "svg",
        rect,
        class_="bar",
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        aria_hidden="true",
        focusable="false",
    )


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


def shown_labels(labels: Sequence[str], most: int = _LABELS, left: float = _LEFT) -> list[int]:
    """The places whose labels are written: equally far apart, the last one among them, and none too wide."""
    if not labels:
        return []
    widest = max(len(label) for label in labels)
    room = max(2, min(most * 2, int((WIDTH - left - RIGHT) / (6.6 * widest + 14))))
    step = math.ceil(len(labels) / room)
    return list(range((len(labels) - 1) % step, len(labels), step))


@dataclass(frozen=True)
class _Plot:
    """Where the numbers of a chart lie: the y axis takes the room that its own numbers need."""

    axis: tuple[float, ...]

    @property
    def numbers(self) -> list[str]:
        """The y axis's ticks as they are written."""
        digits = max(0, -math.floor(math.log10(self.axis[1] - self.axis[0]) + 1e-9))
        return [f"{value:,.{digits}f}" for value in self.axis]

    @property
    def left(self) -> float:
        """Where the x axis begins."""
        return max(_LEFT, _TITLE + _DIGIT * max(len(text) for text in self.numbers) + 6)

    def centres(self, n: int, inset: float) -> list[float]:
        """Places on the x axis: from edge to edge, or that far from the edges; a single one in the middle."""
        low, high = self.left + inset, WIDTH - RIGHT - inset
        if inset == 0:  # room for half a label
            low, high = low + 16, high - 26
        return [(low + high) / 2] if n == 1 else [low + (high - low) * i / (n - 1) for i in range(n)]

    def y(self, value: float) -> float:
        """The height of a value; what is not finite lies on the x axis."""
        low, high = self.axis[0], self.axis[-1]
        place = (value - low) / (high - low) if math.isfinite(value) else 0.0
        return HEIGHT - BOTTOM - place * (HEIGHT - BOTTOM - TOP)


def _line(one: Series, labels: Sequence[str], plot: _Plot, digits: int) -> Markup:
    centres = plot.centres(len(labels), inset=0)
    points = [(x, plot.y(v), v, at) for at, (x, v) in enumerate(zip(centres, one.values, strict=True)) if v is not None]
    path, before = "", None
    there = {at for _, _, _, at in points}
    for x, y, _, at in points:
        path += f"{'L' if before == at - 1 else 'M'}{_px(x)} {_px(y)}"
        if not there & {at - 1, at + 1}:  # no neighbour to draw a line to
            path += f"M{_px(x - 9)} {_px(y)}h18"
        before = at
    dots = []
    for x, y, value, at in points if one.dots else ():
        tip = element("title", f"{one.name}, {labels[at]}: {value:,.{digits}f}")
        hollow = " hollow" if at in one.hollow else ""
        dots.append(element("circle", tip, class_=f"dot{hollow}", cx=_px(x), cy=_px(y), r=3))
    return element("g", element("path", d=path, class_="curve") if path else None, dots, class_=one.style)


def _frame(plot: _Plot, labels: Sequence[str], centres: Sequence[float], x_title: str, y_title: str) -> list[Markup]:
    """Grid lines with their numbers, the labels of the x axis, and the titles of both axes."""
    found, left = [], plot.left
    for value, text in zip(plot.axis, plot.numbers, strict=True):
        y = _px(plot.y(value))
        found.append(element("line", class_="grid", x1=left, x2=WIDTH - RIGHT, y1=y, y2=y))
        found.append(element("text", text, x=left - 6, y=y, class_="tick", text_anchor="end", dy="0.32em"))
    below = HEIGHT - BOTTOM
    for at in shown_labels(labels, left=left):
        found.append(element("text", labels[at], x=_px(centres[at]), y=below + 14, class_="tick", text_anchor="middle"))
    middle = (left + WIDTH - RIGHT) / 2
    found.append(element("text", x_title, x=_px(middle), y=HEIGHT - 6, class_="title", text_anchor="middle"))
    turned = f"rotate(-90 11 {_px((TOP + below) / 2)})"
    found.append(
        element("text", y_title, x=11, y=_px((TOP + below) / 2), transform=turned, class_="title", text_anchor="middle")
    )
    return found


def _figure(series: Sequence[Series], body: Sequence[Markup], says: str) -> Markup:
    keys = [
        element("li", element("svg", _key(one), viewBox="0 0 22 10", class_="key", aria_hidden="true"), one.name)
        for one in series
    ]
    legend = element("ul", keys, class_="legend") if len(series) > 1 else None
    chart = element("svg", body, viewBox=f"0 0 {WIDTH} {HEIGHT}", class_="chart", role="img", aria_label=says)
    return element("div", legend, chart, class_="figure")


def _key(one: Series) -> Markup:
    if one.style.startswith("fill"):
        return element("rect", class_=one.style, x=4, y=0, width=12, height=10)
    dot = element("circle", class_="dot", cx=11, cy=5, r=3) if one.dots else None
    return element("g", element("path", d="M0 5L22 5", class_="curve"), dot, class_=one.style)


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
