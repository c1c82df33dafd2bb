"""A model that another package brings, in a night by the command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.nights import make_place
from tests.quick import LOCAL

NEWEST = Path(__file__).parent / "newest_first"


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """The environment of a process in which the package ``newest_first`` is installed."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(NEWEST, site / "newest_first")
    info = site / "newest_first-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: newest-first\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sparkrec.models]\nnewest = newest_first:MODEL\nbroken = nowhere:MODEL\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}


def sparkrec(env, *words):
    return subprocess.run([sys.executable, "-m", "sparkrec.cli", *words], env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_a_night_of_a_model_from_outside(outside, tmp_path):
    place = make_place(tmp_path, events=1000, days=6)
    conf = tmp_path / "conf.yaml"
    spark = {"spark.driver.memory": "1g", "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    lines = "".join(f"    {key}: '{value}'\n" for key, value in {**spark, **LOCAL}.items())
    conf.write_text(f"spark:\n  master: local[2]\n  conf:\n{lines}")
    words = [
        "nightly",
        "--conf",
        str(conf),
        "--run-date",
        place.last.isoformat(),
        *place.settings("models=[newest]", "report.nightly=true"),
    ]
    done = sparkrec(outside, *words, "newest.half_life_days=1", "gate.enabled=true", "gate.below_popularity=1")
    assert done.returncode == 0, done.stderr
    assert "model left out entry_point=nowhere:MODEL" in done.stderr
    metrics = place.table("metrics").filter(pl.col("model") == "newest")
    assert metrics.filter(pl.col("metric") == "recall").height
    assert place.table("current")["model"].to_list() == ["newest"]
    lists, events = place.table("topk_newest"), place.table("events")
    first = dict(events.group_by("item_id").agg(pl.col("ts").min()).iter_rows())
    mine = lists.filter((pl.col("user_id") == lists["user_id"][0]) & (pl.col("source") == "model")).sort("rank")
    came = [first[item] for item in mine["item_id"]]
    assert len(came) > 1
    assert came == sorted(came, reverse=True)
    user = ["--user", lists["user_id"][0], f"warehouse.path={place.warehouse}"]
    shown = sparkrec(outside, "query", "topk", "--model", "newest", *user, "--format", "csv")
    assert mine["item_id"][0] in shown.stdout, shown.stderr
    (page,) = (place.warehouse / "reports").glob("*.html")
    assert "newest" in page.read_text()


def test_its_settings_have_the_bounds_that_it_declares(outside):
    words = ["nightly", "--run-date", "2024-01-06", "models=[newest]", "newest.half_life_days=-3"]
    done = sparkrec(outside, *words)
    assert done.returncode == 2
    assert "newest.half_life_days=-3.0 (more than 0)" in done.stderr


def test_the_page_that_tells_how_has_this_very_model():
    page = (Path(__file__).parent.parent.parent / "docs" / "add-a-model.md").read_text()
    for file in NEWEST.glob("*.py"):
        assert f"```python\n{file.read_text()}```" in page, file.name
