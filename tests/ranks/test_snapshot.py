"""Snapshots: each row once, whole groups, one row group a file, read back through Petastorm."""

import dataclasses
import random

import numpy as np
import pyarrow.parquet as pq
import pytest

from sparkrec.errors import InvariantError, UserError
from sparkrec.ranks.comm import SingleProcess
from sparkrec.ranks.feed import check_total, read_files
from sparkrec.ranks.snapshot import read_manifest, spark_hash, write_snapshot
from sparkrec.storage import files

COLUMNS = ["g", "t", "x"]


def rows_of(sizes):
    """Rows (g, t, x) of groups of these sizes, shuffled; t orders the rows of the whole."""
    rows = [(1000 - g, t * 100 + g, g * 7 + t) for g, n in enumerate(sizes) for t in range(n)]
    random.Random(1).shuffle(rows)
    return rows


def write(spark, path, sizes, n_files, **more):
    df = spark.createDataFrame(rows_of(sizes), "g bigint, t bigint, x int")
    options = {"group": "g", "order": ["t", "g"], "inputs": {"table": 3}, **more}
    return write_snapshot(df, str(path), n_files=n_files, **options)


def read_all(manifest, size, columns=COLUMNS):
    found = {}
    for rank in range(size):
        part = read_files(manifest, rank, size, columns)
        assert sorted(part) == list(range(rank, len(manifest.files), size))
        found.update(part)
    return found


# One case each: many uneven groups, fewer groups than files, one group that outweighs all, slots beyond the files.
@pytest.mark.integration
@pytest.mark.parametrize(
    ("sizes", "n_files", "n_slots"),
    [([n % 9 + 1 for n in range(101)], 6, 16), ([4, 1], 6, None), ([40, *[1] * 30], 4, 4)],
)
def test_each_row_once_and_whole_groups(spark, tmp_path, sizes, n_files, n_slots):
    manifest = write(spark, tmp_path / "s", sizes, n_files, n_slots=n_slots)
    assert manifest == read_manifest(str(tmp_path / "s"))
    found = read_all(manifest, 2)
    rows = [row for part in found.values() for row in zip(*(part[c].tolist() for c in COLUMNS), strict=True)]
    assert sorted(rows) == sorted(rows_of(sizes))
    groups = {f: set(part["g"].tolist()) for f, part in found.items()}
    assert sum(len(g) for g in groups.values()) == len(sizes) == manifest.groups
    for f, entry in enumerate(manifest.files):
        assert (entry.rows, entry.groups) == (len(found[f]["g"]), len(groups[f]))
        assert (np.diff(found[f]["t"]) > 0).all()
        if entry.rows:
            assert pq.read_metadata(tmp_path / "s" / entry.name).num_row_groups == 1
    if n_slots == 16:  # 16 slots on 6 files: 3, 3, 3, 3, 2, 2; a slot has its share of rows to within a group
        share = sum(sizes) / 16
        for entry, slots in zip(manifest.files, (3, 3, 3, 3, 2, 2), strict=True):
            assert abs(entry.rows - slots * share) <= 9


@pytest.mark.integration
def test_the_same_inputs_use_the_snapshot_again(spark, tmp_path):
    path = tmp_path / "s"
    first = write(spark, path, [2, 3, 4], 2)
    assert write(spark, path, [2, 3, 4], 2) == first
    other = write(spark, path, [2, 3, 4, 5], 2, inputs={"table": 4})
    assert other.rows == 14
    assert {f.name for f in other.files}.isdisjoint(f.name for f in first.files)
    (path / "manifest.json").unlink()
    with pytest.raises(UserError, match="no complete snapshot"):
        read_manifest(str(path))


def test_wrong_columns_are_refused(spark, tmp_path):
    for sql, message in [
        ("select 1 g, 'a' t, 2 x", "numbers only"),
        ("select 1 g, cast(null as int) t, 2 x", "cannot hold nulls"),
        ("select cast(null as int) g, 1 t, 2 x", "cannot hold nulls"),
    ]:
        with pytest.raises(UserError, match=message):
            write_snapshot(spark.sql(sql), str(tmp_path / "s"), group="g", order=["t"], n_files=2, inputs={})
    assert not (tmp_path / "s" / "manifest.json").exists()


def test_too_large_a_file_is_refused(spark, tmp_path):
    with pytest.raises(UserError, match=r"raise train\.snapshot_files"):
        write(spark, tmp_path / "s", [9, 9, 9], 2, rows_per_file_limit=10)


@pytest.mark.integration
def test_lost_rows_are_noticed_on_the_rank_and_in_all(spark, tmp_path):
    manifest = write(spark, tmp_path / "s", [5, 6, 7, 8], 2)
    check_total(manifest, 26, SingleProcess())
    with pytest.raises(InvariantError, match="the ranks saw 25 rows"):
        check_total(manifest, 25, SingleProcess())
    name = tmp_path / "s" / manifest.files[1].name
    table = pq.read_table(name)
    pq.write_table(table.slice(1), name)
    read_files(manifest, 0, 2, COLUMNS)
    with pytest.raises(InvariantError, match="file 1 gave"):
        read_files(manifest, 1, 2, COLUMNS)
    pq.write_table(table, name, row_group_size=3)
    with pytest.raises(InvariantError, match="more than one row group"):
        read_files(manifest, 1, 2, COLUMNS)


def test_ranks_must_divide_the_files(spark, tmp_path):
    manifest = dataclasses.replace(write(spark, tmp_path / "s", [5, 6, 7, 8], 4), inputs={})
    with pytest.raises(UserError, match="no multiple of the ranks"):
        read_files(manifest, 0, 3, COLUMNS)
    assert files.exists(str(tmp_path / "s"))


def test_the_hash_is_sparks(spark):
    keys = [*range(200), 2**20 + 7, 2**31 - 1]
    hashes = spark.createDataFrame([(key,) for key in keys], "key int").selectExpr("key", "hash(key) found").collect()
    assert {row.key: row.found for row in hashes} == {key: spark_hash(key) for key in keys}
