"""The DAG in a real Airflow, which submits the night to a real standalone cluster."""

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import psutil
import pytest

from sparkrec.warehouse import query
from sparkrec.warehouse.location import Warehouse
from tests.nights import make_place
from tests.quick import QUICK

ROOT = Path(__file__).resolve().parents[2]
DAG = "sparkrec_nightly"
ALS = ("models=[als]", "prepare.text.method=none")


@dataclass(frozen=True)
class Airflow:
    """An Airflow with a metadata database of its own, and the site that its Variable describes."""

    programs: Path
    home: Path
    site: dict = field(default_factory=dict)
    secret: dict = field(default_factory=dict)  # the cluster's, in Airflow's environment

    def start(self, *command, **site):
        """Starts an airflow command, with some keys of the Variable replaced."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYSPARK", "SPARK", "AIRFLOW"))}
        env |= {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "infra" / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW_VAR_SPARKREC": json.dumps({**self.site, **site}),
            "SPARK_LOCAL_IP": "127.0.0.1",
            **self.secret,
        }
        with (self.home / "output").open("wb") as output:
            command = [self.programs / "airflow", *command]
            return subprocess.Popen(command, env=env, cwd=self.home, stdout=output, stderr=subprocess.STDOUT)

    def run(self, *command, **site):
        """The same to its end; returns the exit code and what it said."""
        process = self.start(*command, **site)
        try:
            return process.wait(timeout=800), (self.home / "output").read_text()
        finally:
            end(process)

    def states(self):
        """State and number of attempts of the tasks of the latest run."""
        with sqlite3.connect(self.home / "airflow.db") as database:
            return {
                task: (state, attempts)
                for task, state, attempts in database.execute(
                    "select task_id, state, try_number from task_instance where run_id ="
                    " (select run_id from dag_run order by id desc limit 1)"
                )
            }


def end(process):
    """Ends a process and what is below it: spark-submit is in a session of its own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    """Airflow, installed by infra/airflow/install.sh unless the cache has it."""
    installed = subprocess.run([ROOT / "infra" / "airflow" / "install.sh"], capture_output=True, text=True, timeout=800)
    assert installed.returncode == 0, installed.stderr
    airflow = Airflow(Path(installed.stdout.strip()) / "bin", tmp_path_factory.mktemp("airflow"))
    code, said = airflow.run("db", "migrate")
    assert code == 0, said[-4000:]
    return airflow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("airflow-night"), days=5, events=1000)


@pytest.fixture(scope="module")
def on_cluster(airflow, place, standalone_cluster, package_zip, tmp_path_factory):
    """Airflow whose site is the standalone cluster, with a checkout that holds nothing but what the page names."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("jobs", "conf"):
        (checkout / name).symlink_to(ROOT / name)
    (checkout / "dist").symlink_to(package_zip.parent)
    site = {
        "checkout": str(checkout),
        "environment": sys.prefix,
        "master": standalone_cluster.master_url,
        "spark_conf": {
            **QUICK,
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.memory": "1g",
            "spark.executor.memory": "1g",
        },
        "settings": place.settings(*ALS),
    }
    return replace(airflow, site=site, secret=standalone_cluster.environment)


HERE = "local[1]"  # the master of runs that show how a night ends, not where it runs: without executors to start


@pytest.fixture(scope="module")
def published(on_cluster, place):
    """The DAG run that a scheduler would start at 02:00 of the day after the night."""
    code, said = on_cluster.run("dags", "test", DAG, f"{place.last + timedelta(days=1)}T02:00:00+00:00")
    assert code == 0, said[-4000:]
    return on_cluster.states()


@pytest.mark.slow
def test_a_dag_run_publishes_the_night_of_the_day_before(published, place):
    assert published == {"night": ("success", 1), "all_published": ("success", 1)}
    lists = place.table("topk_als")
    assert lists["run_date"].unique().to_list() == [place.last]
    assert query.topk(Warehouse(str(place.warehouse)), "als", lists["user_id"][0]).height == 5
    stages = place.table("runs").filter(pl.col("status") == "done").sort("ended_at")
    assert stages["stage"].to_list() == ["ingest", "index", "prepare", "train_als", "evaluate", "topk"]


@pytest.mark.slow
def test_a_model_held_back_shows_and_is_neither_failed_nor_retried(published, on_cluster, place):
    before = place.table("topk_als")
    strict = [s for s in place.settings(*ALS, "gate.below_popularity=-50", "gate.k=10")
              if s != "gate.enabled=false"]  # fmt: skip
    again = ["--conf", json.dumps({"run_date": str(place.last)})]  # the param wins over the data interval
    code, said = on_cluster.run("dags", "test", DAG, "2024-03-01", *again, settings=strict, master=HERE)
    assert code == 0, said[-4000:]
    assert on_cluster.states() == {"night": ("success", 1), "all_published": ("skipped", 1)}
    assert f"the gate held a model of {place.last} back" in said
    assert place.table("runs").sort("ended_at")["status"][-1] == "held_back"
    assert place.table("topk_als").equals(before)


@pytest.mark.slow
def test_a_users_mistake_fails_at_once_with_its_line(published, on_cluster, place):
    before = place.versions()
    wrong = [*place.settings(*ALS), "als.rnak=8"]
    code, said = on_cluster.run("dags", "test", DAG, "2024-03-02", settings=wrong, master=HERE)
    assert code == 1
    assert on_cluster.states() == {"night": ("failed", 1), "all_published": ("upstream_failed", 0)}
    assert re.search("sparkrec: .*als.rnak", said)
    assert "was refused: the line" in said
    assert place.versions() == before


@pytest.mark.slow
def test_any_other_end_is_retried_and_no_value_meets_a_shell(airflow, tmp_path):
    hostile = f"logs.path=a b;touch {tmp_path}/shell $(touch {tmp_path}/shell) `touch {tmp_path}/shell` 'é\""
    programs = tmp_path / "environment" / "bin"
    programs.mkdir(parents=True)
    for name, text in {
        "sparkrec": "echo one.jar,two.jar",
        "spark-submit": f"printf '%s\\0' \"$@\" >{tmp_path}/arguments; env -0 >{tmp_path}/environ; exit 1",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "sparkrec.zip").touch()
    site = {"checkout": str(tmp_path), "environment": "environment", "master": "yarn", "settings": [hostile]}
    waiting = airflow.start("dags", "test", DAG, "2024-01-13T02:00:00+00:00", **site)
    try:
        give_up = time.monotonic() + 240
        while airflow.states().get("night") != ("up_for_retry", 1):
            assert waiting.poll() is None, (airflow.home / "output").read_text()[-4000:]
            assert time.monotonic() < give_up, airflow.states()
            time.sleep(0.5)
    finally:
        end(waiting)
    assert "ended with exit code 1" in (airflow.home / "output").read_text()
    arguments = (tmp_path / "arguments").read_text().split("\0")[:-1]
    assert arguments[:2] == ["--master", "yarn"]
    assert arguments[-3:] == ["--run-date", "2024-01-12", hostile]
    assert not (tmp_path / "shell").exists()
    names = {line.partition("=")[0] for line in (tmp_path / "environ").read_text().split("\0")}
    assert "SPARK_LOCAL_IP" in names
    assert {name for name in names if "AIRFLOW" in name} == set()


SITE = {"checkout": "/opt/sparkrec", "master": "spark://host:7077"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mastr": "yarn"}, "unknown key mastr: one of checkout, master,"),
        ({"master": ""}, "master missing"),
        ({"checkout": "sparkrec"}, "checkout is not an absolute path: sparkrec"),
        ({"master": "yarn --conf x"}, "master is not spark://HOST:PORT"),
        ({"master": 7}, "master is not a plain text: 7"),
        ({"conf": "--py-files=evil.zip"}, "conf is not a plain text"),
        ({"settings": "logs.path=/a"}, "settings is not a list"),
        ({"settings": ["--force"]}, "settings has '--force', which is not key=value"),
        ({"settings": ["logs.path=/a\nb"]}, "which is not key=value"),
        ({"spark_conf": {"--jars": "evil.jar"}}, "spark_conf has '--jars'"),
        ({"spark_conf": {"spark.executor.cores": 2}}, "which is not spark.… and a text"),
        ({"spark_conf": {"spark.submit.deployMode": "cluster"}}, "exit code would not come back"),
    ],
)
def test_what_is_wrong_in_the_variable_is_one_line(submit_program, change, says):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        submit_program.read_site({**SITE, **change})
    assert says in str(caught.value)


def test_the_variable_is_an_object(submit_program):
    with pytest.raises(ValueError, match="not a JSON object"):
        submit_program.read_site(None)


def test_the_line_is_the_one_of_the_cluster_page(submit_program):
    site = submit_program.read_site(
        {**SITE, "spark_conf": {"spark.executor.memory": "8g"}, "settings": ["train.ranks=4"]}
    )
    assert submit_program.submit_command(site, "a.jar,b.jar", date(2011, 12, 9), force=True) == [
        "/opt/sparkrec/.venv/bin/spark-submit",
        "--master", "spark://host:7077",
        "--properties-file", "/opt/sparkrec/conf/spark-defaults.conf",
        "--jars", "a.jar,b.jar",
        "--py-files", "/opt/sparkrec/dist/sparkrec.zip",
        "--conf", "spark.executor.memory=8g",
        "/opt/sparkrec/jobs/nightly.py", "--conf", "/opt/sparkrec/conf/cluster.yaml",
        "--run-date", "2011-12-09", "--force", "train.ranks=4",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("end_of_interval", "day"),
    [
        (datetime(2024, 3, 1, 2, tzinfo=UTC), date(2024, 2, 29)),
        (datetime(2024, 3, 1, 0, tzinfo=UTC), date(2024, 2, 29)),
        (datetime(2024, 3, 1, 1, tzinfo=timezone(timedelta(hours=2))), date(2024, 2, 28)),
    ],
)
def test_a_night_is_the_last_whole_day_in_utc(submit_program, end_of_interval, day):
    assert submit_program.night_before(end_of_interval) == day
