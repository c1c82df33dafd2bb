"""The whole night on a real standalone cluster, submitted as the README says, against the same night in local[2]."""

import json
from pathlib import Path

import polars as pl
import pytest

pytestmark = pytest.mark.slow

EXACT = {  # what must not depend on where it ran, and what differs between any two attempts
    "events": [],
    "quarantine": ["ingested_at"],
    "items": [],
    "users": [],
    "user_index": [],
    "item_index": [],
    "feature_index": [],
    "interactions": [],
    "sessions": [],
    "copurchase": [],
    "user_item": [],
    "item_features": [],
    "user_features": [],
}


@pytest.fixture
def cluster_night(night, submit, tmp_path):
    """The night of the ``night`` fixture again, by spark-submit on two workers with a Horovod rank on each."""
    place = type(night)(night.log, tmp_path / "warehouse", night.fmt, night.first, night.days)
    root = Path(__file__).resolve().parents[2]
    done = submit(
        root / "jobs" / "nightly.py", "--conf", root / "conf" / "cluster.yaml",
        "--run-date", place.last.isoformat(), *place.settings("train.ranks=2"), timeout=850,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return place


def test_the_cluster_gives_the_same_tables_as_local(night, cluster_night):
    for name, varies in EXACT.items():
        ours, theirs = (_sorted(p.table(name).drop(varies)) for p in (night, cluster_night))
        assert ours == theirs, name
    stages = cluster_night.table("runs").filter(pl.col("stage").is_in(["train_gru", "train_two_tower"]))
    assert ["2 ranks" in message for message in stages["message"]] == [True, True]
    keys = ["model", "metric", "k", "split"]
    both = night.table("metrics").join(cluster_night.table("metrics"), on=keys, nulls_equal=True, suffix="_there")
    assert both.height == night.table("metrics").height
    off = both.filter((pl.col("value") - pl.col("value_there")).abs() > 0.05 * pl.col("value").abs().clip(1.0))
    assert off.height == 0, off
    baselines = both.filter(pl.col("model").str.starts_with("popularity"))
    assert baselines["value"].to_list() == pytest.approx(baselines["value_there"].to_list(), abs=1e-12)
    for model in ("als", "gru", "two_tower"):
        lists = [
            p.table(f"topk_{model}").select("user_id", "rank").sort("user_id", "rank") for p in (night, cluster_night)
        ]
        assert lists[0].equals(lists[1])


def _sorted(table: pl.DataFrame) -> list[str]:
    return sorted(json.dumps(row, default=str, sort_keys=True) for row in table.iter_rows(named=True))
