"""What the page of a night says, from tables that were written without Spark."""

import re
import shutil
import subprocess
import sys
from datetime import timedelta

import polars as pl
import pytest
from deltalake import write_deltalake

from sparkrec.errors import UserError
from sparkrec.report import ledger, write_report
from sparkrec.report.facts import Absent
from sparkrec.report.gather import gather
from sparkrec.report.page import page
from sparkrec.settings.sections import GateConfig, ReportConfig
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import METRICS, RATING_CALIBRATION
from tests.report.test_charts import Reader
from tests.report.warehouses import (
    NIGHTS,
    RAW,
    REASON,
    SCRIPT,
    TITLE,
    USER,
    night_rows,
    run_row,
    write_runs,
    write_warehouse,
)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    return write_warehouse(tmp_path_factory.mktemp("w"))


@pytest.fixture(scope="module")
def report(warehouse):
    return gather(warehouse)


def test_the_head_says_how_the_night_ended(report):
    assert (report.head.run_date, report.head.state) == (NIGHTS[1], "held back")
    als, gru = report.head.models
    assert (als.state, als.version, als.current) == ("published", f"{NIGHTS[1]}.a", NIGHTS[1])
    assert (gru.state, gru.current) == ("held back", NIGHTS[0])
    assert report.head.why == f"gru: {gru.why}"
    assert gru.why.startswith("recall@10 0.1000 is more than")


def test_the_accounts_and_the_refused_rows_are_of_this_night_alone(report):
    accounts = report.ingest
    assert (accounts.read, accounts.kept, accounts.quarantined, accounts.duplicates) == (100, 90, 7, 3)
    assert [(r.reason, r.rows) for r in report.quarantine] == [(REASON, 2), ("too long", 1)]
    assert report.quarantine[0].samples[0].raw == RAW


def test_an_earlier_night_is_told_from_the_versions_that_it_wrote(warehouse, report):
    assert report.sessions.counts == ((2, 2), (3, 1), (40, 1))
    assert (report.sessions.total, report.sessions.anonymous, report.sessions.items) == (4, 1, 47)
    assert (report.sessions.quantile(0.5), report.sessions.quantile(0.9)) == (2, 40)
    earlier = gather(warehouse, str(NIGHTS[0]))
    assert earlier.sessions.counts == ((2, 1), (5, 1))
    assert earlier.head.state == "published"
    assert [len(history.nights) for history in earlier.histories] == [1, 1]  # it knows nothing of the next night


def test_the_gates_lines_follow_popularity_and_the_last_published_model(report):
    als, gru = report.histories
    assert [(n.value, n.popularity, n.last, n.published) for n in als.nights] == [
        (0.5, 0.4, None, True), (0.6, 0.4, 0.5, True),
    ]  # fmt: skip
    assert [(n.last, n.published) for n in gru.nights] == [(None, True), (0.3, False)]
    assert (als.metric, als.below_popularity, als.below_last) == ("recall@10", 0.25, 0.1)


def test_the_last_model_counts_by_how_far_above_popularity_it_was_where_it_was_judged_alike():
    first, *others = days = [NIGHTS[0] + timedelta(days=n) for n in range(4)]
    scores = [(0.5, 0.4, "a"), (0.2, 0.1, "a"), (0.3, 0.2, "b"), (0.4, 0.2, "b")]
    rows = [
        (day, model, "v", "recall", 20, value, 50, "holdout_users", how, None, None)
        for day, (mine, popular, how) in zip(days, scores, strict=True)
        for model, value in (("als", mine), ("popularity_recent", popular))
    ]
    metrics = pl.DataFrame(rows, schema=METRICS.column_names, orient="row")
    published = {"als": dict.fromkeys(days, "")}
    (history,) = ledger.histories(metrics, published, ["als"], GateConfig())
    assert [n.last for n in history.nights] == [None, pytest.approx(0.125), None, pytest.approx(0.3)]
    published["als"][others[0]] = "held back"  # is no new measure, but the night after is judged otherwise all the same
    (history,) = ledger.histories(metrics, published, ["als"], GateConfig())
    assert [n.last for n in history.nights] == [None, pytest.approx(0.125), None, pytest.approx(0.3)]
    assert first == history.nights[0].run_date


def test_lists_are_spread_over_tenths_of_the_items_by_popularity(report):
    als, gru = report.spreads
    assert als.events[:2] == pytest.approx(((20 + 19) / 210, (18 + 17) / 210))
    assert als.by_decile[:3] == pytest.approx((3 / 9, 5 / 9, 1 / 9))  # i1, i2 x 2; i3 x 3, i4 x 2; i5
    assert (als.listed, als.items) == (5, 20)
    assert isinstance(gru, Absent)


def test_users_have_titles_and_what_they_did_before(report):
    mine = next(user for user in report.users if user.key == USER)
    assert mine.lists[0][0] == "als"
    assert [(p.rank, p.item_id, p.title) for p in mine.lists[0][1]][:2] == [(1, "i1", TITLE), (2, "i2", "Cup 2")]
    assert mine.recent == ("Cup 20", "Cup 19", "Cup 18")


def test_losses_come_from_the_models_and_what_is_absent_is_said(report):
    als, holdout = report.losses
    assert isinstance(als, Absent)
    losses = (0.69314 + 1e-5, 0.69314 + 1e-5 / 2, 0.69314 + 1e-5 / 3)
    assert (holdout.part, holdout.by_epoch, holdout.seconds) == ("holdout", losses, 6.0)
    assert isinstance(report.baskets, Absent)
    assert "no such table yet" in report.baskets.why


def test_predicted_ratings_lie_beside_the_true_ones(warehouse, report, tmp_path):
    assert isinstance(report.calibrations, Absent)
    shutil.copytree(warehouse.path, tmp_path / "w")
    night = NIGHTS[1]
    rows = [(night, "als", "v", 3, 2.9, 3.25, 40), (night, "als", "v", 1, 1.5, 1.2, 60), (NIGHTS[0], "als", "v", 1, 9.0, 9.0, 1)]  # fmt: skip  # noqa: E501
    rows += [(night, "rating_biases", "", 1, 2.0, 2.0, 100)]
    frame = pl.DataFrame(rows, schema=RATING_CALIBRATION.column_names, orient="row").cast({"place": pl.Int32})
    write_deltalake(str(tmp_path / "w" / "rating_calibration"), frame, partition_by=["run_date"])
    judged = [
        (night, m, "v", "rmse", None, v, 100, "holdout_ratings") for m, v in (("als", 0.75), ("rating_mean", 1.5))
    ]
    schema = ["run_date", "model", "model_version", "metric", "k", "value", "n", "split"]
    metrics = pl.DataFrame(judged, schema=schema, orient="row").cast({"k": pl.Int32})
    write_deltalake(str(tmp_path / "w" / "metrics"), metrics, mode="append")
    found = gather(Warehouse(str(tmp_path / "w")))
    (mine,) = found.calibrations
    assert mine.points == ((1, 1.5, 1.2, 60), (3, 2.9, 3.25, 40))
    text = re.sub(r"\s+", " ", page(found))
    assert "100 held-out ratings by what was predicted. RMSE: als 0.7500, rating_mean 1.5000." in text
    assert "als, 2.90: 3.25" in text  # in the chart
    assert "as predicted" in text


def test_no_text_of_a_stranger_becomes_markup(report):
    text = page(report)
    read = Reader(text)
    assert {tag for tag, _ in read.tags}.isdisjoint({"script", "img", "i", "iframe", "object", "link"})
    assert not [name for _, attrs in read.tags for name in attrs if name.startswith("on")]
    for shown in (SCRIPT, "it's 🎧", TITLE, REASON, "\\u202eoops"):
        assert shown in read.text
    assert not re.findall(r"""(?:src|href|url)\s*[=(]|@import""", re.sub(r"&lt;.*?&gt;", "", text))


def test_a_first_night_without_anything_is_a_page_that_says_so(tmp_path):
    write_runs(str(tmp_path / "runs"), [run_row(NIGHTS[0], "ingest", status="failed", message="OSError: <disk>")])
    report = gather(Warehouse(str(tmp_path)))
    text = page(report)
    assert report.head.state == "failed"
    assert "In stage ingest: OSError: &lt;disk&gt;." in text
    assert text.count('class="absent"') >= 8
    assert "it was not trained" in text


def test_a_damaged_table_is_said_and_the_rest_is_shown(warehouse, tmp_path):
    shutil.copytree(warehouse.path, tmp_path / "w")
    for file in (tmp_path / "w" / "interactions").glob("*.parquet"):
        file.write_bytes(b"x")
    damaged = gather(Warehouse(str(tmp_path / "w")))
    assert isinstance(damaged.spreads[0], Absent)
    assert isinstance(damaged.users, Absent)
    assert damaged.sessions.total == 4
    page(damaged)


def test_a_stage_is_shown_as_it_last_ran():
    rows = [
        run_row(NIGHTS[0], "index", message="first"),
        run_row(NIGHTS[0], "index", message="second"),
        run_row(NIGHTS[0], "index", status="skipped"),
    ]
    (stage,) = ledger.stages(rows)
    assert (stage.message, stage.status, stage.skipped_since) == ("second", "done", 1)


def test_a_night_held_back_and_then_published_is_published():
    rows = [*night_rows(NIGHTS[1], held_back=True), *night_rows(NIGHTS[1])]
    assert ledger.publications(rows)["gru"] == {NIGHTS[1]: ""}
    assert ledger.head(NIGHTS[1], rows, {}).state == "published"
    unfinished = ledger.head(NIGHTS[1], rows[:2], {})
    assert (unfinished.state, unfinished.models[0].why) == ("unfinished", "it was not trained")


def test_a_recorded_configuration_of_another_version_is_read():
    assert ledger.gate_of({"gate": {"k": 5, "unheard_of": 1}}).k == 5
    assert ledger.gate_of({}).metric == "recall"


def test_the_file_is_where_it_was_asked_for(warehouse, tmp_path):
    folder = ReportConfig(path=str(tmp_path / "pages"))
    assert write_report(warehouse, folder, str(NIGHTS[0])) == str(tmp_path / "pages" / f"{NIGHTS[0]}.html")
    written = write_report(warehouse, folder, out=str(tmp_path / "it's.html"))
    assert written == str(tmp_path / "it's.html")
    assert [p.name for p in tmp_path.glob("*.tmp")] == []
    with pytest.raises(UserError, match="no such night"):
        write_report(warehouse, folder, str(NIGHTS[0] - timedelta(days=1)))
    with pytest.raises(UserError, match="cannot be written"):
        write_report(warehouse, ReportConfig(path=str(tmp_path / "it's.html" / "below")))


@pytest.mark.integration
def test_the_command_starts_no_jvm_and_loads_no_spark(warehouse, tmp_path):
    code = (
        "import sys; from sparkrec.cli import main; "
        f"rc = main(['report', 'warehouse.path={warehouse.path}', '--out', {str(tmp_path / 'r.html')!r}]); "
        "print([m for m in ('pyspark', 'torch') if m in sys.modules], rc)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(tmp_path / "r.html"), "[] 0"]
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")
