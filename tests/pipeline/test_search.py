"""Searches of settings on a real warehouse."""

import json

import polars as pl
import pytest

from sparkrec import cli
from sparkrec.errors import UserError
from sparkrec.evaluation.values import MetricValue
from sparkrec.pipeline.search import parse_grid, run_search, shown
from sparkrec.pipeline.trials import Tried, reached, value_of
from sparkrec.settings.config import load_config
from sparkrec.settings.format_files import load_format
from sparkrec.settings.sections import GateConfig

GRID = ["als.rank=[2, 4]", "prior.als=[0.0, 1.5]", "prior.als_added=[0.0, 1e12]"]


def test_a_grid_is_every_combination():
    points = parse_grid(["als.rank=[2, 4]", "prepare.user_item.half_life_days=[null, 7.5]"], "als")
    assert points == [
        {"als.rank": 2, "prepare.user_item.half_life_days": None},
        {"als.rank": 2, "prepare.user_item.half_life_days": 7.5},
        {"als.rank": 4, "prepare.user_item.half_life_days": None},
        {"als.rank": 4, "prepare.user_item.half_life_days": 7.5},
    ]
    assert parse_grid(["gru.layers=[[100], [224, 100]]"], "gru") == [{"gru.layers": [100]}, {"gru.layers": [224, 100]}]
    assert parse_grid([], "als") == [{}]


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        (["als.rank"], "not key="),
        (["als.rank=4"], "not key="),
        (["als.rank=[]"], "not key="),
        (["als.rank=[4"], "not key="),
        (["als.rank=[2]", "als.rank=[4]"], "not key="),
        (["gru.epochs=[1, 2]"], "cannot change"),
        (["warehouse.path=['/tmp/x']"], "cannot change"),
        (["evaluation.refit=[true]"], "cannot change"),
    ],
)
def test_what_is_no_grid_is_refused(grid, said):
    with pytest.raises(UserError, match=said):
        parse_grid(grid, "als")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "als", "--try", "als.rank=[0]"], "als.rank"),
        (["--model", "als", "--try", "als.depth=[2]"], "als.depth"),
        (["--model", "svd"], "no model that is trained by itself"),
    ],
)
def test_wrong_settings_are_told_in_a_line_before_anything_begins(capfd, tmp_path, words, said):
    words = ["search", "--run-date", "2024-01-05", *words, "logs.format=invoices", f"warehouse.path={tmp_path / 'w'}"]
    assert cli.main(words) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("sparkrec:")
    assert said in line
    assert not (tmp_path / "w").exists()


def test_popularity_stands_beside_the_settings():
    def values(ndcg):
        return (MetricValue("ndcg", 20, ndcg, 7), MetricValue("recall", 20, ndcg / 2, 7), MetricValue("gini", 20, 1, 7))

    def popular(ndcg):
        return tuple(("popularity", "", "holdout_sessions", value) for value in values(ndcg)[:2])

    key, other = "prepare.sessions.gap_minutes", "gru.epochs"
    tried = [
        Tried({key: 30, other: 1}, values(0.2), "holdout_sessions", 1.23, popular(0.3)),
        Tried({key: 30, other: 2}, values(0.4), "holdout_sessions", 4.0),
        Tried({key: 60, other: 1}, values(0.5), "holdout_sessions", 4.0, popular(0.1)),
    ]
    rows = shown("gru", tried, GateConfig(metric="ndcg", k=20)).select("model", "settings", "ndcg@20", "seconds").rows()
    assert rows == [
        ("gru", f"{key}=60 {other}=1", 0.5, 4.0),
        ("gru", f"{key}=30 {other}=2", 0.4, 4.0),
        ("popularity", f"{key}=30", 0.3, None),
        ("gru", f"{key}=30 {other}=1", 0.2, 1.2),
        ("popularity", f"{key}=60", 0.1, None),
    ]


@pytest.mark.parametrize(("fmt", "split", "value"), [("invoices", "", 0.1), ("sessions", "_with_taken", 0.3)])
def test_settings_are_judged_by_lists_as_they_are_published(fmt, split, value):
    """Lists of listeners may hold what they have heard, those of a shop's customers not what they have bought."""
    for model, kind in (("als", "users"), ("gru", "sessions"), ("rules", "baskets")):
        judged = [
            (name, "", f"holdout_{kind}{of}", MetricValue("ndcg", 20, times * ndcg, 7))
            for name, times in ((model, 1), ("popularity", 2))
            for of, ndcg in (("", 0.1), ("_with_taken", 0.3))
        ]
        one = reached({}, model, load_format(fmt), judged, 2.0)
        assert (one.split, one.values) == (f"holdout_{kind}{split}", (MetricValue("ndcg", 20, value, 7),))
        (popular,) = one.baselines
        assert (popular[0], popular[2], popular[3].value) == ("popularity", one.split, 2 * value)


@pytest.mark.slow
def test_settings_are_tried_on_the_night_before_the_holdout(spark, night, later, tmp_path):
    place = later.place.copied_to(tmp_path / "warehouse")
    before = place.versions()
    tried = run_search(
        lambda more: load_config(None, place.settings(*more)), later.second.isoformat(), "als", GRID, spark=spark
    )
    assert [one.settings for one in tried] == parse_grid(GRID, "als")
    found = {tuple(one.settings.values()): value_of(one.values, "ndcg", 20) for one in tried}
    assert len({found[rank, 0.0, 0.0] for rank in (2, 4)} | {found[2, 1.5, 0.0]}) == 3
    assert found[2, 0.0, 1e12] == found[4, 1.5, 1e12]  # so much of it is popularity alone
    assert {name: version for name, version in place.versions().items() if name != "searches"} == before
    assert not (place.warehouse / "_search").exists() or not list((place.warehouse / "_search").iterdir())
    assert not (place.warehouse / "_lock.json").exists()

    written = place.table("searches")
    assert written["validation_date"].unique().to_list() == [later.first]  # evaluation.holdout_days=3
    of_als = written.filter((pl.col("model") == "als") & (pl.col("metric") == "recall") & (pl.col("k") == 20))
    reached = {row["settings"]: row["value"] for row in of_als.iter_rows(named=True)}
    assert reached == {json.dumps(one.settings): value_of(one.values, "recall", 20) for one in tried}

    # The night of the validation day, which never saw a later event, judged the same users by the same popularity.
    keys = ["model", "metric", "k", "split"]
    both = written.filter(pl.col("model").str.starts_with("popularity")).join(
        night.table("metrics"), on=keys, nulls_equal=True, suffix="_lived"
    )
    assert both.height > 10
    assert both["n"].to_list() == both["n_lived"].to_list()
    assert both["value"].to_list() == pytest.approx(both["value_lived"].to_list(), abs=0.02)  # ties go by item number
