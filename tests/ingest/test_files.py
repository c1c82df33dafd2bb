from datetime import date, datetime

import pytest

from sparkrec.errors import UserError
from sparkrec.files import literal_path
from sparkrec.formats import Reader, load_format
from sparkrec.ingest.files import KnownFile, file_date, reader_for, select_files
from sparkrec.ingest.hadoop import FileStatus, normal_uri

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


def test_a_file_goes_to_the_first_reader_that_its_name_fits():
    readers = load_format("sessions").readers
    assert reader_for("deep/x.parquet", readers).kind == "parquet"
    assert reader_for("x.csv.gz", readers).kind == "csv"
    assert reader_for("LICENSE", readers) is None


def test_paths_are_taken_literally():
    assert literal_path("/a/[1]*?{b}.csv") == "/a/\\[1\\]\\*\\?\\{b\\}.csv"
    assert normal_uri("file:///a/b") == normal_uri("file:/a/b") == "file:/a/b"
    assert normal_uri("hdfs://host/a") == "hdfs://host/a"
