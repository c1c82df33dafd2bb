"""Small files and the lock behave alike on a local disk, on a real S3 server and on a real HDFS."""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from io import StringIO

import pyarrow.parquet as pq
import pytest

from sparkrec.errors import UserError
from sparkrec.look.run import look
from sparkrec.pipeline.probes import _try_conditions, _try_python
from sparkrec.ranks.feed import read_files
from sparkrec.ranks.snapshot import Manifest, SnapshotFile
from sparkrec.settings.config import load_config
from sparkrec.storage import files, objects
from sparkrec.warehouse.lock import LOCK, _json, locked
from sparkrec.warehouse.owner import this_process
from tests.look import logs
from tests.storage import servers

ODD = "w h/a=b/ü%x"  # names that mean something to one library or another


@pytest.mark.integration
def test_what_is_written_is_read_listed_moved_and_removed(root):
    folder = files.join(root, ODD)
    one = files.join(folder, "one.json")
    assert not files.exists(one)
    assert files.list_names(folder) == []
    assert files.modified_at(one) is None
    files.write_json(one, {"a": 1})
    files.write_bytes(files.join(folder, "below", "two"), b"2")
    files.write_json(one, {"a": 2})
    assert files.read_json(one) == {"a": 2}
    assert files.list_names(folder) == ["below", "one.json"]
    assert files.exists(folder)
    assert files.modified_at(one) is not None
    assert files.move(one, files.join(folder, "three"))
    assert not files.move(one, files.join(folder, "four"))
    assert files.list_names(folder) == ["below", "three"]
    files.remove(files.join(folder, "three"))
    files.remove(folder)
    files.remove(folder)  # nothing there
    assert not files.exists(folder)
    with pytest.raises(UserError, match="no such file"):
        files.read_bytes(one)


@pytest.mark.integration
def test_of_many_who_create_or_replace_a_file_one_does(root):
    path = files.join(root, "one")

    def winners(attempt):
        with ThreadPoolExecutor(8) as pool:
            return [n for n, won in enumerate(pool.map(attempt, range(8))) if won]

    (first,) = winners(lambda n: files.create(path, b"created by %d" % n))
    assert files.read_bytes(path) == b"created by %d" % first
    (second,) = winners(lambda n: files.replace(path, b"created by %d" % first, b"replaced by %d" % n))
    assert files.read_bytes(path) == b"replaced by %d" % second
    assert not files.replace(path, b"another", b"x")
    assert files.list_names(root) == ["one"]  # nothing is left of those who lost
    assert not files.replace(files.join(root, "none"), b"", b"x")


@pytest.mark.parametrize("dead", [False, True])
def test_of_twenty_nights_at_once_one_holds_the_lock(root, dead):
    """Also where a dead one's lies there, which may be taken over but once."""
    if dead:
        gone = replace(this_process("gone", "2020-01-01T00:00:00+00:00"), pid=2**22 + 1, started="0")
        files.create(files.join(root, LOCK), _json(gone))

    def begin(n):
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(root, f"night {n}", 60))
            except UserError as error:
                return str(error)
            return stack.pop_all()

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(begin, range(20)))
    holders = [one for one in found if not isinstance(one, str)]
    assert len(holders) == 1
    assert [one for one in found if isinstance(one, str) and "another night" not in one] == []
    holders[0].close()
    assert not files.exists(files.join(root, LOCK))


@pytest.mark.integration
def test_a_snapshot_is_fed_from_there(root):
    import pyarrow as pa

    folder = files.join(root, ODD)
    names = []
    for n in range(3):
        rows = pa.table({"item": [n, n, n + 1], "file_no": pa.array([n] * 3, pa.int32())})
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink)
        files.write_bytes(files.join(folder, f"part-{n}.parquet"), sink.getvalue().to_pybytes())
        names.append(SnapshotFile(f"part-{n}.parquet", 3, 1))
    manifest = Manifest(folder, tuple(names), ("item",), "item", (), 3, {})
    ranks = [read_files(manifest, rank, 3, ["item"]) for rank in range(3)]
    found = {n: rows["item"].tolist() for rank in ranks for n, rows in rank.items()}
    assert found == {0: [0, 0, 1], 1: [1, 1, 2], 2: [2, 2, 3]}


def test_probes_find_a_storage_without_conditional_puts(root, monkeypatch):
    _try_python(files.join(root, "probe"))
    _try_conditions(files.join(root, "lock"), root)
    if not root.startswith("s3a:"):
        return

    def create(place, data):
        objects.write(place, data)  # what a store that knows no conditions does
        return True

    monkeypatch.setattr(objects, "create", create)
    with pytest.raises(UserError, match="no conditional puts"):
        _try_conditions(files.join(root, "other"), root)


def test_keys_that_stand_for_folders_are_nothing(s3, tmp_path):
    """Hadoop leaves them behind: what was in them is gone."""
    import boto3

    client = boto3.client("s3", endpoint_url=s3.endpoint)
    client.put_object(Bucket=servers.BUCKET, Key=f"{tmp_path.name}/gone/", Body=b"")
    folder = f"{s3.root}/{tmp_path.name}"
    assert files.list_names(folder) == []
    assert not files.exists(f"{folder}/gone")
    files.write_bytes(f"{folder}/gone/one", b"1")
    assert files.list_names(folder) == ["gone"]


def test_a_missing_package_is_one_line(monkeypatch):
    for module, path in (("obstore.store", "s3a://b/x"), ("hdfs_native", "hdfs://n:1/x")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(UserError, match=r"pip install sparkrec\[stores\]"):
            files.exists(path)


def test_a_log_is_looked_at_there(s3, tmp_path):
    logs.events_typed(tmp_path / "log")
    items = [(1000000 + n, f"Thing {n}", ["a|b", "b"][n % 2]) for n in range(60)]
    logs.write(tmp_path / "log" / "catalog.csv", logs.lines(items, "product_id,title,genres"))
    there = f"s3://{servers.BUCKET}/{tmp_path.name}/a log"
    for file in (tmp_path / "log").iterdir():
        files.write_bytes(f"{there}/{file.name}", file.read_bytes())
    look(there, str(tmp_path / "out"), StringIO())
    proposed = load_config(str(tmp_path / "out" / "night.yaml")).logs
    assert (proposed.path, proposed.items_path) == (there, f"{there}/catalog.csv")
