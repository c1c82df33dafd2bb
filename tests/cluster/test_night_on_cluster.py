"""The whole night on a real standalone cluster, submitted as the README says, against the same night in local[2]."""

from pathlib import Path

import polars as pl
import pytest

from tests.nights import assert_same_night

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster_night(night, submit, tmp_path):
    """The night of the ``night`` fixture again, by spark-submit on two workers with a Horovod rank on each."""
    place = night.at(tmp_path / "warehouse")
    root = Path(__file__).resolve().parents[2]
    done = submit(
        root / "jobs" / "nightly.py", "--conf", root / "conf" / "cluster.yaml",
        "--run-date", place.last.isoformat(), *place.settings("train.ranks=2"), timeout=850,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return place


def test_the_cluster_gives_the_same_tables_as_local(night, cluster_night):
    assert_same_night(night, cluster_night)
    stages = cluster_night.table("runs").filter(pl.col("stage").is_in(["train_gru", "train_two_tower"]))
    assert ["2 ranks" in message for message in stages["message"]] == [True, True]
