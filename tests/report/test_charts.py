"""Texts that cannot break out, numbers that read well, and charts whose marks and labels are where they should be."""

import itertools
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sparkrec.report.charts import Series, binned, columns, lines, shown_labels, ticks
from sparkrec.report.texts import duration, number, share, size, visible

FINITE = st.floats(-1e9, 1e9, allow_nan=False)


class Reader(HTMLParser):
    """Texts, tags and attributes, as a browser would see them."""

    def __init__(self, markup):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def read(chart):
    """A chart's tags with their attributes."""
    return Reader(str(chart.svg)).tags


@pytest.mark.integration
@given(st.text(max_size=40))
def test_a_text_comes_out_of_a_chart_as_it_went_in_and_never_as_a_tag(text):
    found = Reader(str(lines([Series(text, "line1", (1.0, 2.0))], ["a", "b"], "night", "recall", 2).svg))
    assert {tag for tag, _ in found.tags} <= {"svg", "g", "path", "circle", "text", "title"}
    assert f"{visible(text)}, a: 1.00" in found.text


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (duration(4.24), "4.2 s"), (duration(59.96), "1 min 00 s"), (duration(3599.6), "1 h 00 min"),
        (duration(90 * 60), "1 h 30 min"), (size(812), "812 B"), (size(4100), "4.1 kB"), (size(12.3e6), "12 MB"),
        (size(2.5e12), "2.5 TB"), (number(1234567), "1,234,567"), (number(None), "–"), (number(0.12345, 4), "0.1235"),
        (share(1, 8), "12.5 %"), (share(0, 0), "–"),
    ],
)  # fmt: skip
def test_numbers_read_well(shown, text):
    assert shown == text


@given(FINITE, FINITE)
@example(0.0, 5e-324)
@example(1e9, math.nextafter(1e9, 2e9))
@example(-1e-310, 1e-310)
def test_ticks_cover_the_range_in_equal_steps(a, b):
    low, high = min(a, b), max(a, b)
    found = ticks(low, high)
    steps = [y - x for x, y in itertools.pairwise(found)]
    slack = 1e-6 * max(1.0, abs(high), abs(low))
    assert 2 <= len(found) <= 8
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    assert all(math.isclose(s, steps[0], rel_tol=1e-6, abs_tol=1e-12) for s in steps)


@given(st.dictionaries(st.integers(1, 2000), st.integers(1, 100), min_size=1))
def test_a_histogram_counts_everything_once(counts):
    found = binned(sorted(counts.items()))
    assert sum(n for _, n in found) == sum(counts.values())
    assert len(found) <= 24


def test_the_last_bin_says_that_longer_ones_are_in_it():
    assert binned([(2, 500), (3, 500), (70, 1)])[-1] == ("≥ 3", 501)
    assert binned([(1, 3), (2, 4)]) == [("1", 3), ("2", 4)]
    assert binned([(2, 5), (3, 1), (40, 1)])[-1] == ("40", 1)


@given(st.integers(1, 400))
def test_labels_are_few_and_the_last_is_among_them(n):
    shown = shown_labels([f"{i:02d}-01" for i in range(n)])
    assert shown[-1] == n - 1
    assert len(shown) <= 12


def test_a_gap_breaks_the_line_and_a_lone_point_is_seen():
    values = (1.0, 2.0, None, 3.0)
    tags = read(lines([Series("m", "line1", values, hollow=(3,))], list("abcd"), "night", "recall", 2))
    assert [attrs["d"].count("L") for tag, attrs in tags if tag == "path" and "nofill" in attrs["class"]] == [1]
    assert [a["class"] for t, a in tags if t == "circle"] == ["dot", "dot", "dot hollow"]
    assert tags[0][1]["aria-label"] == "recall by night"
    tags = read(lines([Series("m", "line1", values, dots=False)], list("abcd"), "night", "recall", 2))
    assert [float(a["r"]) for t, a in tags if t == "circle"] == [0, 0, 3]


def test_the_line_in_front_is_drawn_last_and_columns_stand_in_their_order():
    series = [Series("m", "front", (1.0, 2.0)), Series("p", "back", (2.0, 1.0))]
    for draw, order in ((lines, ["series back", "series front"]), (columns, ["series front", "series back"])):
        chart = draw(series, ["a", "b"], "night", "recall", 2)
        assert [a["class"] for t, a in read(chart) if t == "g" and a["class"].startswith("series")][:2] == order
        assert chart.series == tuple(series)


def test_columns_are_as_high_as_their_values():
    chart = columns([Series("n", "fill1", (1.0, 2.0, 0.0))], ["1", "2", "3"], "length", "sessions", 0)
    heights = [float(a["height"]) for t, a in read(chart) if t == "rect"]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    assert heights[2] == 0


def test_the_same_numbers_are_the_same_bytes_and_bring_no_style_and_no_script():
    made = [lines([Series("m", "line1", (1.0, 2.0))], ["a", "b"], "night", "recall", 2).svg for _ in range(2)]
    assert made[0] == made[1]
    assert not re.search(r"<script|<style|<!--|style=", made[0])


@pytest.mark.parametrize("values", [(), (None,), (0.0,), (math.inf, 1.0), (math.nan,)])
def test_a_chart_of_hardly_anything_is_a_chart(values):
    labels = [str(n) for n in range(len(values))]
    for draw in (lines, columns):
        chart = draw([Series("m", "line1", values)], labels, "night", "recall", 2).svg
        assert not re.search(r'"(nan|inf|-inf)"', chart)
