"""Real Spark daemons, and jobs submitted to them as a user would."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparkrec.spark.jars import delta_jars
from tests.quick import QUICK

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = Path(sys.prefix)


def load_module(path):
    """A program's functions, from its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def package_zip(tmp_path_factory):
    """The code as it is shipped with --py-files."""
    return load_module(ROOT / "infra" / "package.py").make_package(tmp_path_factory.mktemp("dist") / "sparkrec.zip")


@pytest.fixture(scope="session")
def cluster_program():
    """infra/standalone/cluster.py as a module."""
    return load_module(ROOT / "infra" / "standalone" / "cluster.py")


@pytest.fixture(scope="session")
def submit_program():
    """infra/airflow/sparkrec_submit.py as a module."""
    return load_module(ROOT / "infra" / "airflow" / "sparkrec_submit.py")


@pytest.fixture(scope="session")
def standalone_cluster(cluster_program, tmp_path_factory):
    """A master and two workers of one core and 1.5 GB each."""
    with cluster_program.standalone_cluster(
        2, cores=1, memory_mb=1536, folder=tmp_path_factory.mktemp("cluster")
    ) as running:
        yield running


@pytest.fixture(scope="session")
def revived(standalone_cluster):
    """Daemons of the cluster that a test has started again: they end with it, not with the test."""
    started = []
    yield started
    for process in started:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def submission(package_zip, tmp_path_factory):
    """``submission(cluster, script, *args, conf={})``: what spark-submit is run with, from an empty folder.

    The environment has no PYTHONPATH, so that nothing but the zip brings the code.
    """

    def make(cluster, script, *args, conf=None):
        options = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
        options |= {**QUICK, "spark.sql.shuffle.partitions": "3", **(conf or {})}  # no id may depend on their number
        command = [
            str(ENVIRONMENT / "bin" / "spark-submit"),
            "--master", cluster.master_url,
            "--properties-file", str(ROOT / "conf" / "spark-defaults.conf"),
            "--jars", ",".join(str(jar) for jar in delta_jars()),
            "--py-files", str(package_zip),
            "--driver-memory", "1g", "--executor-memory", "1g",
            *(part for key, value in options.items() for part in ("--conf", f"{key}={value}")),
            str(script), *(str(arg) for arg in args),
        ]  # fmt: skip
        env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYSPARK", "SPARK"))}
        env |= {"PYSPARK_PYTHON": str(ENVIRONMENT / "bin" / "python"), "SPARK_LOCAL_IP": "127.0.0.1"}
        env |= cluster.environment
        return {"args": command, "cwd": tmp_path_factory.mktemp("submitted-from-here"), "env": env}

    return make


@pytest.fixture(scope="session")
def submit(standalone_cluster, submission):
    """``submit(script, *args, conf={})``: spark-submit to the cluster; returns the finished process."""

    def run(script, *args, conf=None, timeout=600):
        made = submission(standalone_cluster, script, *args, conf=conf)
        return subprocess.run(**made, capture_output=True, text=True, timeout=timeout)

    return run
