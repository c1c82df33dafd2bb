"""Storage that fails: a full disk, a warehouse turned read-only, tables that were deleted."""

import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace

import polars as pl
import pytest

from sparkrec.errors import UserError
from tests.nights import assert_same_night

pytestmark = pytest.mark.slow

ALS = ("models=[als]",)
# Without the texts' vectors, which nothing here looks at: so the copied night's preparation is made again, and all
# that is made of it.
AGAIN = (*ALS, "prepare.text.method=none")


@contextmanager
def mounted(folder, size):
    """A file system in memory of so many bytes at a folder; the test is skipped where none can be mounted."""
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "sparkrec-test", str(folder)], capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mount.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder, option):
    return subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], capture_output=True).returncode == 0


def assert_told_in_one_line(running, words):
    assert running.end() == 2, running.tail()
    told = [line for line in running.lines if line.startswith("sparkrec: ")]
    assert [words in line for line in told] == [True], running.tail()
    assert not running.said("Traceback"), running.tail()


def test_a_full_disk_and_one_that_becomes_read_only_are_said_and_a_rerun_finishes(spark, night, start_night, tmp_path):
    place = night.at(tmp_path / "warehouse")
    with mounted(place.warehouse, "200m"):
        shutil.copytree(night.warehouse, place.warehouse, dirs_exist_ok=True)
        used = shutil.disk_usage(place.warehouse).used
        assert remount(place.warehouse, f"size={used + 100_000}")  # not enough for what is prepared
        assert_told_in_one_line(start_night(place, *AGAIN), "no space")
        assert remount(place.warehouse, "size=200m")
        running = start_night(place, *AGAIN)
        running.wait_for("stage begins stage=prepare")
        running.wait_until(lambda: remount(place.warehouse, "ro"))  # refused while a file is open for writing
        assert_told_in_one_line(running, "read-only")
        assert remount(place.warehouse, "rw")
        assert place.run(spark, place.last, *AGAIN) == 0
        assert_same_night(place, night, models=("als",))


@pytest.fixture
def copied(night, tmp_path):
    return night.copied_to(tmp_path / "warehouse")


def remove(place, *tables):
    for name in tables:
        shutil.rmtree(place.warehouse / name)


def test_a_rerun_brings_deleted_tables_back(spark, night, copied):
    remove(copied, "events", "users", "runs")
    assert copied.run(spark, copied.last, *ALS, only=("ingest", "index")) == 0
    assert copied.table("events").height == night.table("events").height
    remove(
        copied, "files", "items", "quarantine", "user_index", "item_index", "interactions", "sessions", "user_item",
        "metrics", "topk_als", "current",
    )  # fmt: skip
    assert copied.run(spark, copied.last, *ALS) == 0
    assert_same_night(copied, night, models=("als",))
    assert copied.table("files").height == night.table("files").height
    assert copied.table("current").filter(pl.col("model") == "als").height == 1


@pytest.mark.parametrize("table", ["events", "files"])
def test_a_table_whose_logs_are_gone_too_is_not_made_anew_without_them(spark, copied, tmp_path, table):
    """The other choice would be to lose their events without a word."""
    log = tmp_path / "log"
    shutil.copytree(copied.log, log)
    sorted(log.iterdir())[0].unlink()
    place = replace(copied, log=log)
    shutil.rmtree(place.warehouse / table)
    before = place.versions()
    with pytest.raises(UserError, match=f"{table} is gone, and so are logs"):
        place.run(spark, place.last, *ALS)
    assert {**place.versions(), "runs": 0} == {**before, "runs": 0}
