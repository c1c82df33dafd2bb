"""Files as others write them: their encodings, byte order marks, comments, and what they are packed with."""

import bz2
import gzip
import io
import lzma
import zipfile
from dataclasses import replace
from datetime import datetime

import pytest
from pyspark import SparkContext

from sparkrec.errors import UserError
from sparkrec.ingest.hadoop import FileSystem
from sparkrec.ingest.literals import literal_as_json
from sparkrec.ingest.log_files import reader_for
from sparkrec.ingest.unpack import make_readable, with_readers
from sparkrec.settings.format_files import load_format
from sparkrec.settings.formats import Reader
from tests.ingest.test_parse import parsed

HEADER = "user_id;item_id;ts"
AT = datetime(2011, 3, 13, 7, 6, 40)
NAMES = ["Größe", "50 €", "plain"]
LINES = [HEADER, *(f"u;{name};1300000000" for name in NAMES)]


def sessions(**keys):
    readers = [replace(r, separator=";", **keys) if r.kind == "csv" else r for r in load_format("sessions").readers]
    return replace(load_format("sessions"), readers=tuple(readers))


def text(mark="", lines=LINES):
    return mark + "\r\n".join(lines) + "\r\n"


def zstd(data):
    """With a checksum, as the command writes it."""
    java = SparkContext._jvm
    packed = java.java.io.ByteArrayOutputStream()
    stream = java.com.github.luben.zstd.ZstdOutputStream(packed)
    stream.setChecksum(True)
    stream.write(bytearray(data))
    stream.close()
    return bytes(packed.toByteArray())


def zipped(how=zipfile.ZIP_DEFLATED, **members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()


PACKED = {"gz": gzip.compress, "bz2": bz2.compress, "zst": zstd, "xz": lzma.compress,
          "zip": lambda data: zipped(**{"deep/inner.csv": data})}  # fmt: skip


@pytest.mark.integration
@pytest.mark.parametrize("multi_line", [False, True])
def test_encodings_and_byte_order_marks(spark, tmp_path, multi_line):
    """The key says windows-1252; a mark says more. Each file has the same rows."""
    (tmp_path / "cp1252.csv").write_bytes(text().encode("cp1252"))
    for name, mark in (("utf-8", "\ufeff"), ("utf-16-le", "\ufeff"), ("utf-16-be", "\ufeff")):
        (tmp_path / f"{name}.csv").write_bytes(text(mark).encode(name))
    fmt = sessions(encoding="windows-1252", multi_line=multi_line, max_record_lines=2)
    rows = parsed(spark, tmp_path, fmt)
    assert sorted((r["item_id"], r["user_id"], r["ts"], r["reason"]) for r in rows) == sorted(
        (name, "u", AT, None) for name in NAMES * 4
    )


@pytest.mark.integration
def test_bytes_that_do_not_fit_the_encoding_are_a_fault_of_their_row(spark, tmp_path):
    def found(name, data, encoding):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.csv").write_bytes(data)
        return [
            (r["item_id"], r["reason"], r["_raw"]) for r in parsed(spark, tmp_path / name, sessions(encoding=encoding))
        ]

    cp1252 = text().encode("cp1252").replace(b"plain", b"pl\x81in")
    assert found("a", cp1252, "windows-1252")[2] == (None, "not windows-1252", "u;pl\x81in;1300000000")
    wide = text().encode("utf-16-le").replace("plain".encode("utf-16-le"), "pl".encode("utf-16-le") + b"\x00\xd8")
    assert found("b", wide, "utf-16le")[1:] == [
        ("50 €", None, None),
        (None, "not utf-16le", "u;pl\ufdd01300000000"),
    ]  # with what came after it
    japanese = text(lines=[HEADER, "u;表示;1300000000"]).encode("shift_jis")  # 表 has the byte of a backslash
    assert found("c", japanese, "Shift_JIS") == [("表示", None, None)]
    with pytest.raises(UserError, match=r"unknown encoding of a log format: encoding: utf-9"):
        found("d", cp1252, "utf-9")


@pytest.mark.integration
def test_json_lines_of_another_encoding_and_python_literals(spark, tmp_path):
    fmt = load_format("reviews")
    line = '{"reviewerID": "u", "asin": "Größe", "overall": 5, "unixReviewTime": 1300000000}\n'
    python = "{u'reviewerID': 'u', 'asin': \"It's Größe\", 'overall': 5.0, 'unixReviewTime': 1300000000, 'x': None}\n"
    (tmp_path / "a.json").write_bytes(line.encode("cp1252") + line.encode("cp1252").replace(b"\xf6", b"\x81"))
    (tmp_path / "b.python").write_text(python + "{'asin': open('x')}\n['asin']\n", encoding="cp1252")
    readers = (replace(fmt.readers[0], encoding="windows-1252"), Reader("python", ("*.python",), "windows-1252"))
    rows = parsed(spark, tmp_path, replace(fmt, readers=readers))
    found = sorted((r["reason"] or "", r["item_id"]) for r in rows)
    malformed = "malformed Python literal"
    assert found == [
        ("", "Größe"),
        ("", "It's Größe"),
        (malformed, None),
        (malformed, None),
        ("not windows-1252", None),
    ]


@pytest.mark.parametrize("line", [None, "", "1", "{'a': }", "{'a': 1e999}", "[1]", "{" * 9999, "{'a': f()}"])
def test_what_is_no_literal_of_a_dict(line):
    assert literal_as_json(line) is None


@pytest.mark.parametrize("multi_line", [False, True])
def test_comments_are_no_rows(spark, tmp_path, multi_line):
    lines = ["# of a shop; with #", HEADER, "u;a;1300000000", "#u;b;1300000000", "u;#c;1300000000"]
    (tmp_path / "a.csv").write_text(text(lines=lines))
    (tmp_path / "b.csv").write_text(text("\ufeff", lines))
    rows = parsed(spark, tmp_path, sessions(comment="#", multi_line=multi_line))
    assert sorted((r["item_id"], r["reason"]) for r in rows) == [("#c", None)] * 2 + [("a", None)] * 2


def test_a_file_that_begins_with_very_many_comments_is_refused(spark, tmp_path):
    (tmp_path / "a.csv").write_text("#\n" * 9000 + text())
    with pytest.raises(UserError, match=r"begins with comments alone: .*a\.csv"):
        parsed(spark, tmp_path, sessions(comment="#"))


def test_compressed_files(spark, tmp_path):
    """One glob for all of them, columns of the path too; UTF-8 and what must be brought into it."""
    for ending, pack in PACKED.items():
        for encoding in ("utf-8", "utf-16"):
            folder = tmp_path / f"event={ending}%20{encoding}"
            folder.mkdir()
            (folder / f"x.csv.{ending}").write_bytes(pack(text().encode(encoding)))
    rows = parsed(
        spark, tmp_path, replace(sessions(), event_weights={f"{e} utf-{n}": 1.0 for e in PACKED for n in (8, 16)})
    )
    assert sorted((r["event_type"], r["item_id"]) for r in rows if not r["reason"]) == sorted(
        (f"{ending} utf-{n}", name) for ending in PACKED for n in (8, 16) for name in NAMES
    )
    assert len({r["_uri"] for r in rows}) == 10


def test_members_of_an_archive_go_to_readers_by_their_own_names(spark, tmp_path):
    fmt, fs = load_format("reviews"), FileSystem(spark)
    line = b'{"reviewerID": "u", "asin": "%s", "overall": 5, "unixReviewTime": 1300000000}\n'
    members = {"a/x.json": line % b"1", "a/y.jsonl": line % b"2", "a/empty.json": b"", "README.txt": b"?",
               "__MACOSX/._x.json": b"?"}  # fmt: skip
    (tmp_path / "many.zip").write_bytes(zipped(**members))
    (tmp_path / "other.zip").write_bytes(zipped(**{"a.csv": b"?", "b.csv": b"?"}))
    (tmp_path / "x.json.zip").write_bytes(zipped(dump=line % b"3"))
    listed = with_readers(fs, fs.list_files(str(tmp_path)), fmt.readers)
    assert [(f.name, bool(reader)) for f, reader in listed] == [
        ("many.zip", True), ("many.zip/README.txt", False), ("other.zip", False), ("x.json.zip", True)
    ]  # fmt: skip
    assert sorted(r["item_id"] for r in parsed(spark, tmp_path, fmt)) == ["1", "2", "3"]


DAMAGES = {
    "cut short": lambda data: data[: len(data) * 2 // 3],
    "damaged": lambda data: data[:900] + b"?!" + data[902:],
    "without its end": lambda data: data[:-9],
}


CUT, HARMED, ENDLESS = DAMAGES
CASES = [(damage, ending) for damage in (CUT, HARMED) for ending in ("zst", "xz", "zip", "stored.zip")]


@pytest.mark.parametrize(("damage", "ending"), [*CASES, (ENDLESS, "bz2")])
def test_a_damaged_copy_is_refused_by_name(spark, tmp_path, ending, damage):
    fs = FileSystem(spark)
    pack = PACKED.get(ending, lambda data: zipped(zipfile.ZIP_STORED, **{"x.csv": data}))  # its checksum alone tells
    packed = pack(text(lines=[HEADER, *(f"u;{n * 7919 % 10007};{n}" for n in range(2000))]).encode())
    assert len(packed) > 2000
    (tmp_path / f"x.csv.{ending}").write_bytes(DAMAGES[damage](packed))
    found = with_readers(fs, fs.list_files(str(tmp_path)), sessions().readers)
    with pytest.raises(UserError, match=r"log file cannot be read: .*x\.csv.* \(it is damaged or cut short") as caught:
        make_readable(fs, found, sessions().readers, str(tmp_path / "_copies"))
    assert "\n" not in str(caught.value)


def test_globs_take_compressed_texts_without_naming_the_ending():
    readers = (Reader("csv", ("*.csv",)), Reader("parquet", ("*.parquet",)))
    for name in ("x.csv", "x.csv.gz", "x.csv.ZST", "deep/x.csv.zip"):
        assert reader_for(name, readers).kind == "csv"
    assert [reader_for(name, readers) for name in ("x.parquet.gz", "x.gz", "x.csv.7z")] == [None] * 3
    most = (Reader("jsonl", ("*.json", "!meta*")), Reader("jsonl", ("!*.csv",)))
    names = ("a.json", "meta_a.json.gz", "a.csv.gz", "b")
    assert [r and most.index(r) for r in (reader_for(name, most) for name in names)] == [0, 1, None, 1]
