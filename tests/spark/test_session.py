"""The session that is built, in processes of their own where the shared one would answer."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from py4j.java_gateway import JavaPackage, java_import
from pyspark import inheritable_thread_target

from sparkrec.settings.sections import SparkConfig
from sparkrec.spark.jars import delta_jars
from sparkrec.spark.jvm import archive_options
from sparkrec.spark.session import (
    CLASS_PATH,
    JVM_OPTIONS,
    _fitting,
    _local_cores,
    _merge_conf,
    build_session,
    jobs_started,
    named_jobs,
)
from sparkrec.spark.sizing import this_machine


def run_python(code, **env):
    base = {key: value for key, value in os.environ.items() if key != "JAVA_HOME"}
    return subprocess.run(
        [sys.executable, "-c", code], env={**base, **env}, capture_output=True, text=True, timeout=120
    )


def test_jars_of_the_set_up_are_the_session_s(spark):
    names = [jar.name for jar in delta_jars()]
    assert [name.split("_")[1].split("-")[1] for name in names] == ["spark", "storage"]
    assert sorted(path.split("/")[-1] for path in spark.conf.get(CLASS_PATH).split(":")) == names
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


def job_names(spark, first):
    """Names of the jobs from a number on, as Spark's pages show them."""
    context = spark._jsc.sc()
    context.listenerBus().waitUntilEmpty()
    names = [context.statusStore().job(n).description() for n in range(first, jobs_started(spark))]
    return [name.get() if name.isDefined() else "" for name in names]


def test_jobs_are_named_by_stage_and_step_in_threads_too(spark):
    first = jobs_started(spark)
    with named_jobs(spark, "prepare"):
        with named_jobs(spark, "write sessions"):
            spark.range(1).count()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(inheritable_thread_target(spark)(lambda: spark.range(2).count())).result()
    spark.range(3).count()
    names = job_names(spark, first)
    assert len(names) >= 3
    assert list(dict.fromkeys(names)) == ["prepare: write sessions", "prepare", names[-1]]
    assert "prepare" not in names[-1]


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
from sparkrec.settings.sections import SparkConfig
from sparkrec.errors import UserError
from sparkrec.spark.session import build_session
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
        "import sparkrec.settings.config, sparkrec.spark.session, sparkrec.warehouse.store, sys;"
        "import sparkrec.warehouse.tables; print(*sys.modules)"
    )
    assert {"pyspark", "torch", "pandas", "horovod", "petastorm"} & set(done.stdout.split()) == set()


@pytest.mark.integration
def test_a_session_of_this_process_says_nothing_of_the_jvm_s_own_affairs():
    code = """
from sparkrec.settings.config import load_config
from sparkrec.log import setup_logging
from sparkrec.spark.session import build_session
setup_logging()
config = load_config("conf/local.yaml", ["spark.master=local[3]", "spark.conf={spark.sql.shuffle.partitions: '5'}"])
spark = build_session(config.spark, log_mb=1.0)
assert spark.range(3).repartition("id").count() == 3
spark._jvm.java.lang.System.err.println("a line of substance")
names = ["adaptive.enabled", "codegen.wholeStage", "shuffle.partitions"]
print(*[spark.conf.get("spark.sql." + name) for name in names], spark.sparkContext.defaultParallelism)
print(spark._jvm.org.apache.logging.log4j.LogManager.getLogger("org.apache.spark.util.Utils").getLevel())
spark.sparkContext._gateway.jvm.org.apache.logging.log4j.LogManager.getLogger("org.apache.spark.SparkConf").warn("old")
spark.stop()
"""
    done = run_python(code)
    assert done.stdout.splitlines() == ["false false 5 2", "WARN"], done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 3, done.stderr
    assert said[0].split("Z ")[1].startswith("INFO session cores=3 ")
    assert said[0].endswith('fit_for="few rows" heap=' + said[0].split("heap=")[1])
    assert 'set_otherwise=["spark.sql.shuffle.partitions"]' in said[0]
    assert said[1] == "a line of substance"
    assert said[2].endswith("WARN SparkConf: old")


@pytest.mark.parametrize(
    ("master", "cores"),
    [("local", 1), ("local[3]", 3), ("local[4, 2]", 4), (None, True), ("local[*]", True), ("spark://host:7077", None),
     ("local-cluster[2,1,512]", None), ("yarn", None)],
)  # fmt: skip
def test_a_cluster_s_cores_are_its_own_affair(master, cores):
    assert _local_cores(master) == (this_machine().cores if cores is True else cores)
    fitting = _fitting(SparkConfig(master=master), 1.0)
    assert fitting.keys() == {JVM_OPTIONS} if cores is None else fitting.keys() > {JVM_OPTIONS, "spark.driver.memory"}


def test_what_the_user_sets_stays(tmp_path, monkeypatch):
    (tmp_path / "spark-defaults.conf").write_text("# of this machine\nspark.driver.memory 5g\n\nspark.a=b\n")
    free = _fitting(SparkConfig(), 1.0)
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    mine = {"spark.sql.adaptive.enabled": "true"}
    found = _fitting(SparkConfig(conf=mine), 1.0)
    assert free.keys() - found.keys() == {"spark.driver.memory", "spark.sql.adaptive.enabled"}
    assert found[JVM_OPTIONS].startswith("-Dlog4j2.configurationFile=file:///")


def test_an_archive_that_does_not_fit_is_passed_over_in_silence(tmp_path):
    def java(*options):
        home = os.environ.get("JAVA_HOME")
        program = f"{home}/bin/java" if home else "java"
        return subprocess.run([program, *options, "-version"], capture_output=True, text=True, timeout=60)

    archive = tmp_path / "spark.jsa"
    assert archive_options(archive) == ()
    archive.write_bytes(b"of another Java" * 1000)
    plain, other = java(), java(*archive_options(archive))
    assert (other.returncode, other.stdout) == (0, "")
    assert other.stderr.splitlines()[:2] == plain.stderr.splitlines()[:2]
    assert len(other.stderr.splitlines()) == 3


def test_the_jvm_is_asked_once_for_each_name_and_again_for_one_that_it_did_not_have(spark):
    jvm = spark._jvm
    assert jvm.PythonUtils is jvm.PythonUtils
    assert jvm.org.apache.spark.sql.functions is jvm.org.apache.spark.sql.functions
    assert jvm.org.apache.spark is not jvm.org.apache.hadoop
    assert isinstance(jvm.Semaphore, JavaPackage)  # which is what Py4J says of all that it does not find
    java_import(jvm, "java.util.concurrent.Semaphore")
    assert jvm.Semaphore(3).availablePermits() == 3
