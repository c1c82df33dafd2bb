"""A job submitted to a real standalone cluster as the README says: it looks around, then it is the whole night.

One application for both: the start of its driver and of its executors takes most of the time.
"""

import json
from pathlib import Path

import polars as pl
import pytest

from tests.nights import assert_same_night

pytestmark = pytest.mark.slow

JOB = """
import json, os, sys

def where(_):
    import sparkrec
    from pyspark import BarrierTaskContext

    BarrierTaskContext.get().barrier()  # two tasks at once: one on each worker
    return [(os.getcwd(), sparkrec.__file__)]

def add_ranks(comm):
    import sparkrec, torch

    total = comm.allreduce_sum(torch.tensor([float(comm.rank + 1)]))
    return {"rank": comm.rank, "sum": float(total), "file": sparkrec.__file__}

def look(table):
    import sparkrec
    from sparkrec.settings.config import load_config
    from sparkrec.settings.sections import SparkConfig, TrainConfig
    from sparkrec.spark.session import build_session
    from sparkrec.ranks.launch import run_ranks

    conf = {"spark.executor.memory": "77m", "spark.sql.broadcastTimeout": "299"}
    spark = build_session(SparkConfig(conf=conf))
    spark.range(1000).repartition(2).write.format("delta").save(table)
    return {
        "driver": sparkrec.__file__,
        "epochs": load_config(None, ["logs.format=ratings"]).gru.epochs,
        "executor_memory": spark.conf.get("spark.executor.memory"),
        "broadcast_timeout": spark.conf.get("spark.sql.broadcastTimeout"),
        "rows": spark.read.format("delta").load(table).count(),
        "tasks": spark.sparkContext.parallelize(range(2), 2).barrier().mapPartitions(where).collect(),
        "ranks": run_ranks(spark, add_ranks, (), TrainConfig(ranks=2)),
    }

def main(table, out, *arguments):
    from sparkrec.pipeline.job import run_job

    with open(out, "w") as file:
        json.dump(look(table), file)
    return run_job([], "The night, as jobs/nightly.py has it.", arguments)

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def submitted(night, submit, tmp_path_factory):
    """What the job saw; and the ``night`` fixture's night again, on two workers with a Horovod rank on each."""
    folder = tmp_path_factory.mktemp("submitted")
    place, root = night.at(folder / "warehouse"), Path(__file__).resolve().parents[2]
    (folder / "job.py").write_text(JOB)
    done = submit(
        folder / "job.py", folder / "table", folder / "found.json", "--conf", root / "conf" / "cluster.yaml",
        "--run-date", place.last.isoformat(), *place.settings("train.ranks=2"), timeout=850,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "found.json").read_text()), place


def test_job_runs_shipped_code_on_both_workers_and_under_horovod(submitted, package_zip, standalone_cluster):
    found, _ = submitted
    # Driver: straight from the zip, its configuration too.
    assert found["driver"] == f"{package_zip}/sparkrec/__init__.py"
    assert found["epochs"] == 5
    # Spark: both workers, each with the copy of the zip that was sent to its executor.
    folders = sorted(folder for folder, _ in found["tasks"])
    assert [f"worker-{n}" in folders[n] for n in range(2)] == [True, True]
    assert all(str(standalone_cluster.folder) in folder for folder in folders)
    assert all(file.endswith("/sparkrec.zip/sparkrec/__init__.py") for _, file in found["tasks"])
    # Delta from the given jars; spark-submit's settings win over the configuration's, which fills in the rest.
    assert found["rows"] == 1000
    assert found["executor_memory"] == "1g"
    assert found["broadcast_timeout"] == "299"
    # Horovod: 1 + 2 on each of the ranks, from the zip again.
    assert [(r["rank"], r["sum"]) for r in found["ranks"]] == [(0, 3.0), (1, 3.0)]
    assert all(rank["file"].endswith("/sparkrec.zip/sparkrec/__init__.py") for rank in found["ranks"])


def test_the_cluster_gives_the_same_tables_as_local(night, submitted):
    _, on_cluster = submitted
    assert_same_night(night, on_cluster)
    stages = on_cluster.table("runs").filter(pl.col("stage").is_in(["train_gru", "train_two_tower"]))
    assert ["2 ranks" in message for message in stages["message"]] == [True, True]
