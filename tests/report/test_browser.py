"""The pages in a real browser: nothing is asked of the network, nothing fails, all is seen, no text overflows."""

import polars as pl
import pytest

from sparkrec.report import write_report
from sparkrec.settings.sections import ReportConfig
from sparkrec.warehouse.location import Warehouse
from tests.report.browser import browser
from tests.report.warehouses import SCRIPT, USER, write_warehouse

pytestmark = pytest.mark.slow

HEADINGS = [
    "Models", "Stages", "Ingest", "Sessions and baskets", "Training", "Metrics of this night",
    "Predicted ratings", "Settings found", "Coverage and popularity", "Lists of a few users", "Tables",
]  # fmt: skip
TITLES = "[...document.querySelectorAll('h2')].map(e => e.innerText)"
# What is wider than its box, or beyond the page's edge, but for tables that scroll in their own box.
OVERFLOWS = """[...document.querySelectorAll('main *')].filter(e => !e.closest('svg') && !e.closest('.scroll'))
  .filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline'
               || e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 200))"""
# Texts of a chart that leave it, or that lie over each other.
COLLISIONS = """[...document.querySelectorAll('svg.chart')].flatMap(chart => {
  const around = chart.getBoundingClientRect();
  const boxes = [...chart.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
  return boxes.flatMap(([text, box], i) =>
    box.left < around.left - 1 || box.right > around.right + 1 || box.bottom > around.bottom + 1 ? [text + ' leaves']
    : boxes.slice(i + 1).filter(([, other]) => !apart(box, other)).map(([other]) => text + ' over ' + other));
})"""
COLOURS = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chrome") / "profile") as page:
        yield page


def check(chrome, path, width, dark=False):
    """Opens a page and looks for all that may go wrong on any."""
    chrome.open(path, width, dark)
    assert chrome.value(TITLES) == HEADINGS
    assert chrome.value(OVERFLOWS) == []
    assert chrome.value("document.documentElement.scrollWidth") <= width
    assert chrome.value(COLLISIONS) == []
    requested = [event["request"]["url"] for event in chrome.said("Network.requestWillBeSent")]
    assert requested == [path.as_uri()]
    problems = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")
    assert chrome.said(*problems) == []


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The page of a warehouse whose texts try to break out of it."""
    folder = tmp_path_factory.mktemp("hostile")
    path = folder / "it's <b>.html"
    write_report(write_warehouse(folder / "w"), ReportConfig(), out=str(path))
    return path


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (420, False)])
def test_a_page_of_hostile_texts(chrome, hostile, width, dark):
    check(chrome, hostile, width, dark)
    assert chrome.value("document.title") == "Night of 2024-01-02 – sparkrec"
    assert chrome.value("document.querySelector('h1 .state').innerText") == "held back"
    assert any(SCRIPT in text for text in chrome.value("[...document.querySelectorAll('pre')].map(e => e.innerText)"))
    assert USER in chrome.value("[...document.querySelectorAll('h3 bdi')].map(e => e.innerText)")
    assert chrome.value("document.scripts.length + document.images.length") == 0
    light, night = ["rgb(255, 255, 255)", "rgb(28, 35, 41)"], ["rgb(20, 24, 28)", "rgb(230, 234, 237)"]
    assert chrome.value(COLOURS) == (night if dark else light)


def test_a_page_is_printed_light_and_within_the_paper(chrome, hostile):
    chrome.open(hostile, 720, dark=True, media="print")
    assert chrome.value(COLOURS) == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]
    assert chrome.value(OVERFLOWS) == []
    assert chrome.value(COLLISIONS) == []


def test_the_page_of_a_real_night(chrome, night, tmp_path):
    path = tmp_path / "r.html"
    write_report(Warehouse(str(night.warehouse)), ReportConfig(users=2), out=str(path))
    check(chrome, path, 1200)
    assert chrome.value("document.querySelector('h1').innerText") == f"Night of {night.last}published"
    text = chrome.value("document.body.innerText")
    runs = night.table("runs")
    accounts = runs.filter(pl.col("stage") == "ingest").row(0, named=True)
    for shown in (
        f"{accounts['rows_in']:,} read = {accounts['rows_out']:,} kept + 0 quarantined + 0 duplicates.",
        f"{night.table('sessions').height:,} sessions",
        f"{night.table('copurchase').height:,} baskets",
        runs["run_id"][0],
        "No model was published before this one.",
        *runs["stage"],
    ):
        assert shown in text
    recall = night.table("metrics").filter((pl.col("model") == "als") & (pl.col("metric") == "recall"))["value"]
    assert all(f"{value:.4f}" in text for value in recall)
    listed = chrome.value("[...document.querySelectorAll('ol.list li bdi')].map(e => e.innerText)")
    assert len(listed) == 2 * 3 * 5  # users, models, places
    assert set(listed) <= set(night.table("items")["title"])
    assert (
        chrome.value("document.querySelectorAll('svg.chart').length") == 3 + 2 + 2 + 3
    )  # gate, lengths, losses, spread
    dots = chrome.value("[...document.querySelectorAll('svg.chart .dots title')].map(e => e.textContent)")
    gate = (pl.col("model") == "als") & (pl.col("metric") == "recall") & (pl.col("split") == "holdout_users")
    judged = night.table("metrics").filter(gate & (pl.col("k") == 20))["value"].item()
    assert f"als, {night.last:%m-%d}: {judged:.4f}" in dots
