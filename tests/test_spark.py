"""The session that is built, in processes of their own where the shared one would answer."""

import os
import subprocess
import sys

import pytest

from sparkrec.config import SparkConfig
from sparkrec.spark import _merge_conf, build_session, delta_jars


def run_python(code, **env):
    base = {key: value for key, value in os.environ.items() if key != "JAVA_HOME"}
    return subprocess.run(
        [sys.executable, "-c", code], env={**base, **env}, capture_output=True, text=True, timeout=120
    )


def test_jars_of_the_set_up_are_the_session_s(spark):
    names = [jar.name for jar in delta_jars()]
    assert [name.split("_")[1].split("-")[1] for name in names] == ["spark", "storage"]
    assert sorted(path.split("/")[-1] for path in spark.conf.get("spark.jars").split(",")) == names
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    assert spark.conf.get("spark.dynamicAllocation.enabled") == "false"


def test_settings_of_the_user_add_to_those_required():
    layers = (
        {"spark.a": "1", "spark.b": "1"},
        {"spark.a": "2", "spark.sql.session.timeZone": "CET", "spark.sql.extensions": "my.Extension"},
        {"spark.b": "3"},
    )
    merged = _merge_conf(*layers)
    assert (merged["spark.a"], merged["spark.b"]) == ("2", "3")
    assert merged["spark.sql.session.timeZone"] == "UTC"
    assert merged["spark.sql.extensions"] == "my.Extension,io.delta.sql.DeltaSparkSessionExtension"
    assert _merge_conf(merged)["spark.sql.extensions"] == merged["spark.sql.extensions"]


def test_threads_of_python_workers_do_not_spin_while_they_wait(spark):
    def policy(_):
        return [os.environ.get("OMP_WAIT_POLICY")]

    assert policy(None) == ["PASSIVE"]
    assert spark.sparkContext.parallelize([0], 1).mapPartitions(policy).collect() == ["PASSIVE"]


def test_a_running_session_is_taken(spark):
    assert build_session(SparkConfig(master="local[2]")) is spark


@pytest.mark.parametrize(
    ("setup", "says"),
    [
        ("sys.prefix = '/nowhere'", "Delta's jars are missing: /nowhere (run make setup)"),
        ("os.environ['JAVA_HOME'] = '/nowhere'", "Spark did not start: [JAVA_GATEWAY_EXITED]"),
    ],
)
def test_machine_that_is_not_ready_is_one_clear_line(setup, says):
    code = f"""
import os, sys
{setup}
from sparkrec.config import SparkConfig
from sparkrec.errors import UserError
from sparkrec.spark import build_session
try:
    build_session(SparkConfig(master="local[1]"))
except UserError as error:
    print(error)
"""
    done = run_python(code)
    assert done.stdout.startswith(says), done.stderr
    assert done.stdout.count("\n") == 1


def test_library_is_reached_without_heavy_imports():
    done = run_python(
        "import sparkrec.config, sparkrec.spark, sparkrec.store, sparkrec.tables, sys; print(*sys.modules)"
    )
    assert {"pyspark", "torch", "pandas", "horovod", "petastorm"} & set(done.stdout.split()) == set()
