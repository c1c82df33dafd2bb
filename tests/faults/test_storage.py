"""Storage that fails: a full disk, a warehouse turned read-only, tables that were deleted."""

import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.nights import assert_same_night, make_place

pytestmark = pytest.mark.slow

ALS = ("models=[als]",)


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


@pytest.fixture
def place(night, tmp_path):
    return night.at(tmp_path / "warehouse")


def assert_told_in_one_line(running, words):
    assert running.end() == 2, running.tail()
    told = [line for line in running.lines if line.startswith("sparkrec: ")]
    assert [words in line for line in told] == [True], running.tail()
    assert not running.said("Traceback"), running.tail()


def test_a_full_disk_and_one_that_becomes_read_only_are_said_and_a_rerun_finishes(spark, night, place, start_night):
    with mounted(place.warehouse, "600k"):
        assert_told_in_one_line(start_night(place, *ALS), "no space")
        assert remount(place.warehouse, "size=200m")
        running = start_night(place, *ALS)
        running.wait_for("stage begins stage=prepare")
        running.wait_until(lambda: remount(place.warehouse, "ro"))  # refused while a file is open for writing
        assert_told_in_one_line(running, "read-only")
        assert remount(place.warehouse, "rw")
        assert place.run(spark, place.last, *ALS) == 0
        assert_same_night(place, night, models=("als",))


@pytest.fixture(scope="module")
def als_night(spark, tmp_path_factory):
    place = make_place(tmp_path_factory.mktemp("als"))
    assert place.run(spark, place.last, *ALS) == 0
    return place


@pytest.fixture
def copied(als_night, tmp_path):
    return als_night.copied_to(tmp_path / "warehouse")


@pytest.mark.parametrize(
    "tables",
    [
        ("events", "sessions", "user_item", "metrics", "users", "runs", "topk_als"),
        ("files", "items", "quarantine", "user_index", "item_index", "interactions", "current"),
    ],
)
def test_a_rerun_brings_deleted_tables_back(spark, als_night, copied, tables):
    for name in tables:
        shutil.rmtree(copied.warehouse / name)
    assert copied.run(spark, copied.last, *ALS) == 0
    assert_same_night(copied, als_night, models=("als",))
    assert copied.table("files").height == als_night.table("files").height
    assert copied.table("current").height == 1


@pytest.mark.parametrize("table", ["events", "files"])
def test_a_table_whose_logs_are_gone_too_is_not_made_anew_without_them(spark, copied, tmp_path, table):
    """The other choice would be to lose their events without a word."""
    from sparkrec.errors import UserError

    log = tmp_path / "log"
    shutil.copytree(copied.log, log)
    sorted(log.iterdir())[0].unlink()
    place = replace(copied, log=log)
    shutil.rmtree(place.warehouse / table)
    before = place.versions()
    with pytest.raises(UserError, match=f"{table} is gone, and so are logs"):
        place.run(spark, place.last, *ALS)
    assert place.versions() == before
