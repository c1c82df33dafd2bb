"""A driver that is killed, or that ends before any of a night's writes: a plain rerun finishes the night.

No reader sees half of one.
"""

import threading
import time
from itertools import count

import polars as pl
import pytest

from sparkrec.pipeline.stages import stage_names
from sparkrec.settings.config import load_config
from tests.cuts import PowerCutError, cut_before
from tests.night_process import names_below
from tests.nights import assert_same_night

pytestmark = pytest.mark.slow

KILLED = ("train_two_tower", "topk", "maintain")  # in the ranks, as lists are made, in the care of tables
CARE = ("maintenance.enabled=true", "maintenance.compact_files=1")  # a last stage that has something to do


class Watch:
    """A reader that looks at the published lists whenever their files change, and keeps how many rows it has seen."""

    def __init__(self, place):
        self.place, self.stop = place, threading.Event()
        self.seen = {name: set() for name in ("topk_als", "topk_gru", "topk_two_tower")}
        self.thread = threading.Thread(target=self._look)

    def _look(self):
        known = {}
        while not self.stop.wait(0.02):
            for name, heights in self.seen.items():
                table = self.place.warehouse / name
                files = names_below(table)
                if files == known.get(name) or not (table / "_delta_log" / f"{0:020d}.json").exists():
                    continue
                known[name] = files
                heights.add(self.place.table(name).height)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def kill_in(stage, place, start_night, delay):
    """A night that is killed as it has begun to write in a stage, or so many seconds later."""
    running = start_night(place, *CARE)
    running.wait_for(f"stage begins stage={stage}")
    running.wait_for_files(place.warehouse)
    time.sleep(delay)
    running.kill()
    assert (place.warehouse / "_lock.json").exists()


def test_a_killed_night_is_finished_by_a_plain_rerun(spark, night, start_night, tmp_path):
    """What lies between is done here, in a JVM that is warm; the night that is killed next goes on from there."""
    place = night.at(tmp_path / "warehouse")
    stages = stage_names(load_config(None, place.settings(*CARE)))
    with Watch(place) as watch:
        for number, stage in enumerate(stages):
            if stage in KILLED:
                kill_in(stage, place, start_night, delay=0.1 * (number % 3))  # not always at its first write
            if stage != stages[-1]:
                assert place.run(spark, place.last, *CARE, only=(stage,)) == 0
        assert place.run(spark, place.last, *CARE) == 0
    assert_same_night(place, night)
    left = [*place.warehouse.glob("_*.json"), *place.warehouse.glob("_*/*")]
    assert not left  # neither a lock nor staged rows nor checkpoints
    for name, heights in watch.seen.items():
        assert heights <= {0, place.table(name).height}, name
    done = place.table("runs").filter(pl.col("status") == "done").group_by("stage").len()
    assert set(done["stage"]) == set(stages)


def test_a_night_that_ends_before_any_of_its_writes_is_finished_by_a_plain_rerun(spark, night, tmp_path, monkeypatch):
    """Ingest's own are tried in tests/ingest/test_broken_off.py."""
    place = night.at(tmp_path / "warehouse")
    settings = ("models=[als]",)
    assert place.run(spark, place.last, *settings, only=("ingest",)) == 0
    stages, writes = stage_names(load_config(None, place.settings(*settings))), {}
    for stage in stages[1:]:
        for write in count():
            with monkeypatch.context() as patch:
                cut_before(patch, write)
                try:
                    assert place.run(spark, place.last, *settings, only=(stage,)) == 0
                    writes[stage] = write
                    break
                except PowerCutError:
                    pass
    assert_same_night(place, night, models=("als",))
    assert all(count > 0 for count in writes.values())  # its row of runs at least
    assert writes["prepare"] > 8
    assert writes["topk"] > 2
