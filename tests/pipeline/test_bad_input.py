"""Bad input: one line that says what is wrong, exit code 2, and every table as it was."""

import gzip
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sparkrec.errors import UserError
from sparkrec.pipeline.nightly import run_nightly
from sparkrec.settings.config import load_config

pytestmark = pytest.mark.slow


@pytest.fixture
def place(going_on, tmp_path):
    """A copy of the shared night and of its log, which a test may spoil; its last night is the one to come."""
    shutil.copytree(going_on.log, tmp_path / "log")
    return replace(going_on.copied_to(tmp_path / "warehouse"), log=tmp_path / "log", days=going_on.days + 1)


def last_file(place) -> Path:
    return place.log / f"{place.last.isoformat()}.csv"


def truncate_gzip(place):
    data = gzip.compress(last_file(place).read_bytes() * 50)
    last_file(place).unlink()
    (place.log / f"{place.last.isoformat()}.csv.gz").write_bytes(data[: len(data) // 2])


def drop_column(place):
    lines = last_file(place).read_text().splitlines()
    last_file(place).write_text("\n".join(line.split(",", 1)[1] for line in lines) + "\n")


def change_known_file(place):
    first = place.log / f"{place.first.isoformat()}.csv"
    first.write_text(first.read_text() + first.read_text().splitlines()[-1] + "\n")


SPOILED = {
    "an empty file": (lambda p: last_file(p).write_bytes(b""), (), "empty"),
    "a truncated gzip": (truncate_gzip, (), ".csv.gz"),
    "a missing column": (drop_column, (), "InvoiceNo"),
    "a day without events": (lambda p: last_file(p).unlink(), (), "allow_empty_day"),
    "a changed file": (change_known_file, (), "on_changed_file"),
    "a missing path": (lambda p: None, ("logs.path=/nowhere/at/all",), "/nowhere/at/all"),
    "an unknown format": (lambda p: None, ("logs.format=tablets",), "tablets"),
    "an unknown key": (lambda p: None, ("gru.epoch=3",), "gru.epoch"),
    "a wrong type": (lambda p: None, ("gru.epochs=many",), "gru.epochs"),
    "a wrong value": (lambda p: None, ("als.feedback=loud",), "als.feedback"),
    "content without vectors": (
        lambda p: None,
        ("models=[content]", "prepare.text.method=none"),
        "prepare.text.method",
    ),
    "an unknown side feature": (
        lambda p: None,
        ("models=[meta_prod2vec]", "meta_prod2vec.side=[colour]"),
        "meta_prod2vec.side",
    ),
    "an unknown attribute": (lambda p: None, ("topk.exclude=['colour=red']",), "no such attribute of items"),
    "no ratings": (lambda p: None, ("two_tower.second_head=rating",), "the log has no ratings to learn"),
    "too few task slots": (lambda p: None, ("train.ranks=16", "train.snapshot_files=16"), "train.ranks=16"),
    "no warehouse": (lambda p: None, ("warehouse.path=",), "warehouse.path"),
    "a hold-out that ends the log": (lambda p: None, ("evaluation.cutoff=2031-01-01",), "evaluation.cutoff"),
}


REFUSED_BY_INGEST = list(SPOILED)[:5]  # the others before anything is read


def unchanged(place, before):
    """Whether all tables are as they were, but for the ledger, which says what was refused."""
    now = place.versions()
    return {name: v for name, v in now.items() if name != "runs"} == {n: v for n, v in before.items() if n != "runs"}


@pytest.mark.parametrize("case", SPOILED)
def test_a_bad_night_is_refused_and_changes_nothing(spark, place, case):
    spoil, settings, said = SPOILED[case]
    spoil(place)
    before = place.versions()
    with pytest.raises(UserError) as refused:
        run_nightly(load_config(None, place.settings(*settings)), place.last.isoformat(), spark=spark)
    line = str(refused.value)
    assert said in line
    assert "\n" not in line
    assert unchanged(place, before)
    assert not list((place.warehouse / "_staging").glob("*/*"))
    if case in REFUSED_BY_INGEST:
        row = place.table("runs").sort("ended_at").row(-1, named=True)
        assert (row["stage"], row["status"], row["message"]) == ("ingest", "refused", line[:500])


def test_a_run_date_that_is_none(spark, place):
    with pytest.raises(UserError, match="YYYY-MM-DD"):
        run_nightly(load_config(None, place.settings()), "tomorrow", spark=spark)


def test_a_warehouse_that_cannot_be_written(spark, place):
    blocked = place.warehouse.parent / "file"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(UserError, match="warehouse cannot be written"):
        run_nightly(
            load_config(None, place.settings(f"warehouse.path={blocked}/w")), place.last.isoformat(), spark=spark
        )


def test_the_command_says_it_in_one_line_with_exit_code_2(place):
    before = place.versions()
    command = [str(Path(sys.executable).parent / "sparkrec"), "nightly", "--run-date", place.last.isoformat()]
    done = subprocess.run(
        [*command, *place.settings("logs.path=/nowhere/at/all", "spark.master=local[1]")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    ours = [line for line in done.stderr.splitlines() if line.startswith("sparkrec:")]
    assert len(ours) == 1
    assert "/nowhere/at/all" in ours[0]
    assert "Traceback" not in done.stderr
    assert unchanged(place, before)
