"""A worker whose network is cut while a night runs on it: it lives in a network namespace of its own."""

import contextlib
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from tests.night_process import NightProcess
from tests.nights import assert_same_night

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
HERE, THERE = "10.213.77.1", "10.213.77.2"
IMPATIENT = {  # so that a lost worker is noticed within seconds
    "spark.network.timeout": "20s",
    "spark.network.timeoutInterval": "5s",
    "spark.executor.heartbeatInterval": "4s",
    "spark.shuffle.io.maxRetries": "1",
    "spark.shuffle.io.retryWait": "1s",
    "spark.driver.host": HERE,
    "spark.driver.bindAddress": HERE,
}


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True)


@pytest.fixture
def namespace():
    """A network namespace joined to this one by a virtual cable; the test is skipped where none can be made."""
    name = f"sparkrec-{uuid.uuid4().hex[:6]}"
    inside, outside = f"i{name[-6:]}", f"o{name[-6:]}"
    try:
        made = ip("netns", "add", name)
    except FileNotFoundError:
        pytest.skip("no network namespace can be made here: there is no ip command")
    if made.returncode:
        pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
    try:
        for words in (
            ("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name),
            ("addr", "add", f"{HERE}/24", "dev", outside),
            ("link", "set", outside, "up"),
            ("-n", name, "addr", "add", f"{THERE}/24", "dev", inside),
            ("-n", name, "link", "set", inside, "up"),
            ("-n", name, "link", "set", "lo", "up"),
        ):
            done = ip(*words)
            if done.returncode:
                pytest.skip(f"no network can be made here: {done.stderr.strip()}")
        yield name, outside
    finally:
        ip("link", "del", outside)
        ip("netns", "del", name)


@pytest.fixture
def two_hosts(cluster_program, namespace, tmp_path):
    """A master and a worker here, another worker in the namespace."""
    place = tmp_path / "cluster"
    port, web_port = cluster_program._free_ports(2)
    cluster = cluster_program.StandaloneCluster(f"spark://{HERE}:{port}", f"http://{HERE}:{web_port}", place, "s" * 32)
    place.mkdir()
    secured = ["--properties-file", str(cluster_program._properties(place / "daemons.conf", cluster.secret))]
    daemons = {}
    with contextlib.ExitStack() as stack:
        stack.callback(cluster_program._end, daemons)
        options = ["--host", HERE, "--port", str(port), "--webui-port", str(web_port), *secured]
        daemons["master"] = cluster_program._start(
            place / "master", cluster_program.MASTER, *options, SPARK_LOCAL_IP=HERE
        )
        for name, host, within in (("here", HERE, ()), ("there", THERE, ("ip", "netns", "exec", namespace[0]))):
            options = ["--host", host, "--cores", "1", "--memory", "1536m", "--webui-port", "0", *secured]
            options += ["--work-dir", str(place / name / "work"), cluster.master_url]
            daemons[name] = cluster_program._start(
                place / name, cluster_program.WORKER, *options, within=within, SPARK_LOCAL_IP=host
            )
        cluster_program._wait(cluster, daemons, 2, time.monotonic() + 120)
        yield cluster


def test_a_night_outlives_a_worker_that_is_cut_off(night, tmp_path, two_hosts, namespace, submission):
    place = night.copied_to(tmp_path / "warehouse")  # made again from its preparation on
    arguments = ["--conf", ROOT / "conf" / "cluster.yaml", "--run-date", place.last.isoformat()]
    made = submission(
        two_hosts,
        ROOT / "jobs" / "nightly.py",
        *arguments,
        *place.settings("models=[als]", "prepare.text.method=none"),
        conf=IMPATIENT,
    )
    made["env"]["SPARK_LOCAL_IP"] = HERE
    running = NightProcess(**made)
    try:
        running.wait_for("stage begins stage=prepare")
        running.wait_for_files(place.warehouse)  # into its work
        assert ip("link", "set", namespace[1], "down").returncode == 0
        if running.end() != 0:
            running = NightProcess(**made)  # the worker is still cut off
            assert running.end() == 0, running.tail()
    finally:
        running.kill()
    assert_same_night(place, night, models=("als",))
