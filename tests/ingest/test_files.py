from dataclasses import replace
from datetime import date, datetime

import pytest

from sparkrec.errors import UserError
from sparkrec.ingest.again import format_hash, repeated, sharing
from sparkrec.ingest.hadoop import FileStatus, normal_uri
from sparkrec.ingest.log_files import KnownFile, file_date, reader_for, select_files
from sparkrec.settings.format_files import load_format
from sparkrec.settings.formats import Reader
from sparkrec.settings.sections import IngestConfig
from sparkrec.storage.files import literal_path

T1, T2 = datetime(2011, 1, 1), datetime(2011, 1, 2)
CSV = Reader("csv")


def status(name, size=10, modified_at=T1):
    return FileStatus(name, f"/logs/{name}", f"file:/logs/{name}", size, modified_at)


def select(listed, known=None, on_changed="refuse", sha="same"):
    return select_files(listed, known or {}, lambda f: sha, date(2011, 1, 2), on_changed)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2011-12-09.csv.gz", date(2011, 12, 9)),
        ("day=2011-12-09/part-0.csv", date(2011, 12, 9)),
        ("from-2011-12-01-to-2011-12-09.csv", date(2011, 12, 9)),
        ("12011-12-091.csv", None),
        ("2011-13-45.csv", None),
        ("log.csv", None),
    ],
)
def test_the_last_iso_date_of_a_name_is_its_date(name, expected):
    assert file_date(name) == expected


def test_files_are_sorted_out():
    known = {"a.csv": KnownFile(10, T1, "same"), "touched.csv": KnownFile(10, T2, "same")}
    names = ["a.csv", "touched.csv", "b.csv", "2011-01-02.csv", "2011-01-03.csv"]
    selection = select([*((status(n), CSV) for n in names), (status("LICENSE"), None)], known)
    assert [f.name for f, _ in selection.to_read] == ["2011-01-02.csv", "b.csv"]
    assert (selection.unchanged, selection.later, selection.ignored) == (2, 1, 1)


@pytest.mark.parametrize("known", [KnownFile(9, T1, "same"), KnownFile(10, T2, "other")])
def test_a_changed_file_is_refused_by_name_or_replaced(known):
    with pytest.raises(UserError, match=r"changed since it was taken in: /logs/a\.csv .*on_changed_file=replace"):
        select([(status("a.csv"), CSV)], {"a.csv": known})
    assert [f.name for f, _ in select([(status("a.csv"), CSV)], {"a.csv": known}, "replace").replaced] == ["a.csv"]


def test_an_unchanged_file_is_read_again_where_it_is_asked_for_whatever_night_it_is_of():
    known = {name: KnownFile(10, T1, "same") for name in ("a.csv", "2011-01-03.csv", "changed.csv")}
    listed = [(status(n, 11 if n == "changed.csv" else 10), CSV) for n in (*known, "2011-01-04.csv")]
    selection = select_files(
        listed, known, lambda f: "same", date(2011, 1, 2), "replace", {"2011-01-03.csv", "changed.csv"}
    )
    assert [[f.name for f, _ in found] for found in (selection.again, selection.replaced, selection.new)] == [
        ["2011-01-03.csv"], ["changed.csv"], []
    ]  # fmt: skip
    assert (selection.unchanged, selection.later, len(selection.to_read)) == (1, 1, 2)


def test_which_files_are_read_again():
    known = {
        "refused": KnownFile(10, T1, "s", "old", 3),
        "gone": KnownFile(10, T1, "s", "old", 3),
        "judged now": KnownFile(10, T1, "s", "new", 3),
        "all fine": KnownFile(10, T1, "s", "old", 0),
        "of an older version": KnownFile(10, T1, "s"),
    }
    there = known.keys() - {"gone"} | {"not taken in"}
    assert repeated(known, there, "new", []) == {"refused"}
    assert repeated(known, there, "new", ["all fine", "not taken in"]) == {"refused", "all fine"}
    assert repeated(known, there, "new", ["all"]) == known.keys() - {"gone"}
    with pytest.raises(UserError, match="no such file to read again: gone, nowhere"):
        repeated(known, there, "new", ["nowhere", "gone", "all"])


def test_what_decides_how_rows_are_judged_is_in_the_hash_and_nothing_else():
    fmt, ingest = load_format("invoices"), IngestConfig()
    same = replace(fmt, title=None, item_features=(), event_weights={"purchase": 2.0, "cancellation": 1.0})
    assert format_hash(fmt, ingest) == format_hash(same, replace(ingest, again=["x"]))
    others = [
        replace(fmt, checks=()),
        replace(fmt, timezone="Europe/London"),
        replace(fmt, event_weights={"purchase": 1.0}),
    ]
    hashes = {format_hash(other, ingest) for other in (fmt, *others)} | {
        format_hash(fmt, replace(ingest, max_quantity=1))
    }
    assert len(hashes) == 5


def test_files_that_share_events_with_a_changed_one_and_those_that_another_format_judged_in_turn():
    known = {
        "b": KnownFile(1, T1, "s", "now", 0, ("a",)),
        "c": KnownFile(1, T1, "s", "now", 0, ("b",)),  # b's rows come back as they were
        "d": KnownFile(1, T1, "s", "old", 0, ("a", "x")),
        "e": KnownFile(1, T1, "s", "now", 0, ("d",)),  # d's may not
        "f": KnownFile(1, T1, "s", "now", 0, ("y",)),
    }
    assert sharing(known, {"a"}, "now") == {"b", "d", "e"}
    assert sharing(known, set(), "now") == set()


def test_a_file_goes_to_the_first_reader_that_its_name_fits():
    readers = load_format("sessions").readers
    assert reader_for("deep/x.parquet", readers).kind == "parquet"
    assert reader_for("x.csv.gz", readers).kind == "csv"
    assert reader_for("LICENSE", readers) is None


def test_paths_are_taken_literally():
    assert literal_path("/a/[1]*?{b}.csv") == "/a/\\[1\\]\\*\\?\\{b\\}.csv"
    assert normal_uri("file:///a/b") == normal_uri("file:/a/b") == "file:/a/b"
    assert normal_uri("hdfs://host/a") == "hdfs://host/a"
