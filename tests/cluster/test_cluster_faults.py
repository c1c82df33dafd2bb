"""Parts of a real cluster that die while a night runs on it."""

import contextlib
import subprocess
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.night_process import NightProcess
from tests.nights import assert_same_night

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(night, tmp_path):
    """A copy of the night that is made again from its preparation on, for ALS and without vectors of texts."""
    return replace(night.copied_to(tmp_path / "warehouse"), more=("models=[als]", "prepare.text.method=none"))


@pytest.fixture
def start(submission, place):
    """``start(cluster)``: the night on a cluster, as a ``NightProcess``."""
    started = []

    def run(cluster):
        arguments = ["--conf", ROOT / "conf" / "cluster.yaml", "--run-date", place.last.isoformat()]
        made = submission(cluster, ROOT / "jobs" / "nightly.py", *arguments, *place.settings())
        started.append(NightProcess(**made))
        return started[-1]

    yield run
    for process in started:
        process.kill()


def daemons(cluster, *words):
    """Processes of the cluster whose command line has all the words."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if all(word in line for word in (*words, cluster.master_url.rsplit(":", 1)[1])):
            found.append(process)
    return found


def executors(cluster):
    """The executors of the cluster: they run below its workers."""
    found = []
    for worker in daemons(cluster, "deploy.worker.Worker"):
        for child in worker.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since
                found += [child] if "CoarseGrainedExecutorBackend" in " ".join(child.cmdline()) else []
    return found


def reach(start, cluster, running, text):
    """Waits for a line; where the night ended before it, runs it again. Returns the process that said it."""
    if running.ended_before(text):
        running = start(cluster)
        running.wait_for(text)
    return running


def finish(start, cluster, running):
    """Waits for the night; where it ended badly, runs it again, which must do."""
    if running.end() != 0:
        again = start(cluster)
        assert again.end() == 0, again.tail()


def test_a_night_outlives_a_killed_executor_and_its_masters_restart(night, place, standalone_cluster, start, revived):
    cluster = standalone_cluster
    running = start(cluster)
    running.wait_for("stage begins stage=prepare")
    running.wait_until(lambda: len(executors(cluster)) == 2)  # some seconds on a busy machine
    running.wait_for_files(place.warehouse)  # into its work
    executors(cluster)[0].kill()
    running = reach(start, cluster, running, "stage begins stage=evaluate")
    (master,) = daemons(cluster, "deploy.master.Master")
    command, environment = master.cmdline(), master.environ()
    master.kill()
    master.wait(30)
    with (cluster.folder / "second-master").open("wb") as log:
        revived.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    finish(start, cluster, running)
    assert cluster.alive_workers() == 2
    assert_same_night(place, night, models=("als",))
