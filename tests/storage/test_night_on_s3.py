"""Nights on a real S3 server, by the commands that a user types: killed, cut off from it, published, rolled back."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from sparkrec.storage import files
from sparkrec.warehouse.lock import LOCK
from tests.night_process import NightProcess
from tests.nights import assert_same_night, goes_on
from tests.quick import QUICK
from tests.storage.servers import in_environment
from tests.storage.stored import Stored

pytestmark = pytest.mark.slow

CUT_S = 30.0
K = 5


@pytest.fixture(scope="module")
def client(s3_server):
    """This process as a client of the server, for as long as the module's tests run."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        yield s3_server


@pytest.fixture(scope="module")
def command(client, tmp_path_factory):
    """``command(*words)``: the words of a ``sparkrec`` command, with a local Spark for small nights."""
    conf = tmp_path_factory.mktemp("conf") / "conf.yaml"
    quick = "".join(f"    {key}: '{value}'\n" for key, value in QUICK.items())
    conf.write_text(
        f"storage:\n  endpoint: {client.endpoint}\nspark:\n  master: local[2]\n  conf:\n    spark.driver.memory: 1g\n"
        f"    spark.driver.host: 127.0.0.1\n    spark.driver.bindAddress: 127.0.0.1\n{quick}"
    )
    return lambda *words: [sys.executable, "-m", "sparkrec.cli", *words, "--conf", str(conf)]


@pytest.fixture(scope="module")
def jars():
    done = subprocess.run(
        [sys.executable, "-m", "sparkrec.cli", "jars", "--with", "s3"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "hadoop-aws" in done.stdout


@pytest.fixture(scope="module")
def stored(client, command, jars, night):
    """The shared night with log and warehouse on S3: its driver is killed, it is run again, and the network is cut."""
    for file in night.log.iterdir():
        files.write_bytes(f"s3://{client.root.removeprefix('s3a://')}/a log/{file.name}", file.read_bytes())
    more = ("report.nightly=true", f"logs.path=s3://{client.root.removeprefix('s3a://')}/a log")
    place = Stored(night, f"{client.root}/a warehouse", more)
    words = command("nightly", "--run-date", place.last.isoformat(), *place.settings())
    first = NightProcess(words, env=in_environment(client))
    first.wait_for("stage begins stage=train_two_tower")
    first.kill()
    assert files.exists(f"{place.uri}/{LOCK}")
    again = NightProcess(words, env=in_environment(client))
    again.wait_for("stage begins stage=evaluate")
    with client.standing_still():
        time.sleep(CUT_S)
    assert again.end() == 0, again.tail()
    assert again.said("lock_taken_over")
    assert again.said("stage skipped stage=train_gru")
    return place


def run(command, client, *words):
    done = subprocess.run(command(*words), env=in_environment(client), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_night_is_the_one_on_a_local_disk(stored, night):
    assert_same_night(stored, night)
    assert not files.exists(f"{stored.uri}/{LOCK}")
    assert files.list_names(f"{stored.uri}/_probes") == []


def test_readers_find_it_without_java(stored, command, client):
    setting = f"warehouse.path={stored.uri}"
    user = stored.table("topk_als")["user_id"][0]
    listed = run(command, client, "query", "topk", "--model", "als", "--user", user, "--format", "csv", setting)
    assert len(listed.splitlines()) == K + 1
    counted = run(command, client, "query", "sql", "--format", "csv", "select count(*) n from topk_gru", setting)
    assert int(counted.split()[1]) == stored.table("topk_gru").height
    page = run(command, client, "report", setting).strip()
    assert page == f"{stored.uri}/reports/{stored.last}.html"
    assert b"</html>" in files.read_bytes(page)


def test_no_secret_is_kept(stored, client):
    runs = stored.table("runs")
    assert runs.height > 0
    assert "test's" not in str(runs.rows())
    assert client.endpoint in str(runs.rows())


def test_the_next_night_is_published_whole_cared_for_and_rolled_back(stored, command, client, night, tmp_path):
    place = goes_on(night, tmp_path, 1)
    second = place.last + timedelta(days=1)
    later = replace(stored.at_log(place.log, night.days + 1), more=())
    care = ("maintenance.enabled=true", "maintenance.compact_files=1", "models=[als]", "report.nightly=false")
    before = stored.table("topk_als")
    running = NightProcess(
        command("nightly", "--run-date", second.isoformat(), *later.settings(*care)), env=in_environment(client)
    )
    running.wait_for("stage begins stage=topk")
    stop, seen = threading.Event(), []

    def read():
        while not stop.wait(0.2):  # the night needs the cores, too
            rows = stored.table("topk_als")
            nights = rows.group_by("run_date").agg(pl.col("model_version").n_unique(), pl.col("user_id").n_unique())
            seen.append((rows.height, tuple(sorted(nights.rows()))))

    with ThreadPoolExecutor(8) as readers:
        reading = [readers.submit(read) for _ in range(8)]
        try:
            assert running.end() == 0, running.tail()
        finally:
            stop.set()
        for future in reading:
            future.result()
    after = stored.table("topk_als")
    assert {height for height, _ in seen} <= {before.height, after.height}
    assert all(versions == 1 for _, nights in seen for _, versions, _ in nights)
    assert running.said("stage done stage=maintain")
    assert stored.table("current").filter(model="als")["run_date"].to_list() == [second]
    setting = f"warehouse.path={stored.uri}"
    run(command, client, "rollback", "--to", stored.last.isoformat(), "--model", "als", setting)
    assert stored.table("current").filter(model="als")["run_date"].to_list() == [stored.last]


def test_a_store_that_refuses_is_one_line(stored, command, client):
    words = command("nightly", "--run-date", stored.last.isoformat(), *stored.settings("warehouse.path=s3a://nobody/w"))
    done = subprocess.run(words, env=in_environment(client), capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("sparkrec:")]
    assert "warehouse cannot be written: s3a://nobody/w" in line
    assert "Traceback" not in done.stderr
