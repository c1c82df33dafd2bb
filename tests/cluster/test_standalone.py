"""A job submitted to a real standalone cluster: both workers run the shipped code, Horovod ranks find each other."""

import json

import psutil
import pytest

pytestmark = pytest.mark.slow

PROBE = """
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

def main(table, out):
    import sparkrec
    from sparkrec.config import SparkConfig, TrainConfig, load_config
    from sparkrec.spark import build_session
    from sparkrec.training.launch import run_ranks

    conf = {"spark.executor.memory": "77m", "spark.sql.shuffle.partitions": "3"}
    spark = build_session(SparkConfig(conf=conf))
    spark.range(1000).repartition(2).write.format("delta").save(table)
    tasks = spark.sparkContext.parallelize(range(2), 2).barrier().mapPartitions(where).collect()
    found = {
        "driver": sparkrec.__file__,
        "epochs": load_config(None, ["logs.format=ratings"]).gru.epochs,
        "executor_memory": spark.conf.get("spark.executor.memory"),
        "shuffle_partitions": spark.conf.get("spark.sql.shuffle.partitions"),
        "rows": spark.read.format("delta").load(table).count(),
        "tasks": tasks,
        "ranks": run_ranks(spark, add_ranks, (), TrainConfig(ranks=2)),
    }
    with open(out, "w") as file:
        json.dump(found, file)
    spark.stop()

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.fixture
def found(submit, tmp_path):
    """What the probe saw. One job for all the checks: a cluster's start and Horovod's take most of the time."""
    script = tmp_path / "probe.py"
    script.write_text(PROBE)
    done = submit(script, tmp_path / "table", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((tmp_path / "found.json").read_text())


def test_job_runs_shipped_code_on_both_workers_and_under_horovod(found, package_zip, standalone_cluster):
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
    assert found["shuffle_partitions"] == "3"
    # Horovod: 1 + 2 on each of the ranks, from the zip again.
    assert [(r["rank"], r["sum"]) for r in found["ranks"]] == [(0, 3.0), (1, 3.0)]
    assert all(rank["file"].endswith("/sparkrec.zip/sparkrec/__init__.py") for rank in found["ranks"])


def test_failed_daemon_is_told_with_its_log(cluster_program, tmp_path):
    def start_and_stop():
        with cluster_program.standalone_cluster(1, memory_mb=0, folder=tmp_path, timeout_s=60):
            raise AssertionError("a worker without memory does not start")

    with pytest.raises(RuntimeError, match=r"worker-0 ended with exit code 1: [\s\S]*memory"):
        start_and_stop()
    leftover = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert leftover == []
