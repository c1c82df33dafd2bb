"""Nights by the command line."""

import sys

import pytest

from tests.night_process import NightProcess
from tests.quick import QUICK


@pytest.fixture
def start_night(tmp_path):
    """``start_night(place, *settings)``: the place's last night as a ``NightProcess``."""
    conf = tmp_path / "conf.yaml"
    conf.write_text(
        "spark:\n  master: local[2]\n  conf:\n    spark.driver.memory: 1g\n    spark.driver.host: 127.0.0.1\n"
        "    spark.driver.bindAddress: 127.0.0.1\n" + "".join(f"    {key}: '{value}'\n" for key, value in QUICK.items())
    )
    started = []

    def start(place, *settings):
        command = [sys.executable, "-m", "sparkrec.cli", "nightly", "--conf", str(conf)]
        command += ["--run-date", place.last.isoformat(), *place.settings(*settings)]
        started.append(NightProcess(command))
        return started[-1]

    yield start
    for process in started:
        process.kill()
