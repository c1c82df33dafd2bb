"""Dense numbers: append-only, in order of the id, the same however the input lies."""

import contextlib

import pytest

from sparkrec.errors import InvariantError, UserError
from sparkrec.prepare import numbering
from sparkrec.prepare.index import assert_dense, new_ids
from sparkrec.prepare.numbering import numbered

FIRST = ["b", "a", "zebra", "é", "🎸", 'say "hi"', "two\nlines", "10", "9", "", "b", None, "B"]
SECOND = ["a", "aa", "🎸", "🎷", None, "A"]


@contextlib.contextmanager
def many_partitions(spark, n):
    """Small data in n partitions, as large data would be."""
    names = {"spark.sql.shuffle.partitions": str(n), "spark.sql.adaptive.coalescePartitions.enabled": "false"}
    before = {name: spark.conf.get(name) for name in names}
    for name, value in names.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)


def ids(spark, values):
    return spark.createDataFrame([(v,) for v in values], "id string")


def in_order(values):
    """The different ids in the order of their bytes."""
    return sorted({v for v in values if v is not None}, key=lambda v: v.encode())


def test_numbers_follow_the_ids_and_never_move(spark):
    first, count = new_ids(ids(spark, FIRST), None)
    assert count == first.count()
    assert dict(first.collect()) == {v: i for i, v in enumerate(in_order(FIRST))}
    second, count = new_ids(ids(spark, SECOND), first)
    new = in_order(set(SECOND) - set(FIRST))
    assert count == len(new)
    assert dict(second.collect()) == {v: i for i, v in enumerate(new, start=first.count())}
    both = first.unionByName(second)
    assert_dense(both)
    nothing, count = new_ids(ids(spark, FIRST + SECOND), both)
    assert (nothing.count(), count) == (0, 0)


@pytest.mark.parametrize(("partitions", "one_task"), [(1, 1500), (7, 1500), (1, 1499), (7, 1499)])
def test_partitions_do_not_matter(spark, monkeypatch, partitions, one_task):
    monkeypatch.setattr(numbering, "ONE_TASK", one_task)
    with many_partitions(spark, 5):
        source = spark.range(3000).selectExpr("concat('user ', id * 7919 % 1500) as id").repartition(partitions)
        rows, _ = new_ids(source, None)
        assert (rows.rdd.getNumPartitions() > 1) == (one_task < 1500)
        found = dict(rows.collect())
    assert found == {v: i for i, v in enumerate(sorted(f"user {k}" for k in range(1500)))}


def test_numbered_counts_through_partitions_without_rows(spark, monkeypatch):
    monkeypatch.setattr(numbering, "ONE_TASK", 0)
    with many_partitions(spark, 6):
        rows, count = numbered(ids(spark, ["c", "a", "b"]), "id")
        assert (dict(rows.collect()), count) == ({"a": 0, "b": 1, "c": 2}, 3)


def test_no_ids(spark):
    rows, count = new_ids(ids(spark, [None]), None)
    assert count == 0
    assert rows.collect() == []
    assert_dense(rows)
    assert [(f.name, f.dataType.simpleString()) for f in rows.schema] == [("id", "string"), ("idx", "int")]


@pytest.mark.integration
def test_more_ids_than_int32(spark):
    full = spark.createDataFrame([("a", 2**31 - 2)], "id string, idx int")
    assert new_ids(ids(spark, ["b"]), full)[0].collect()[0]["idx"] == 2**31 - 1
    with pytest.raises(UserError, match="too many ids"):
        new_ids(ids(spark, ["b", "c"]), full)


@pytest.mark.parametrize(
    "rows",
    [
        [("a", 0), ("b", 2)],
        [("a", 1), ("b", 2)],
        [("a", 0), ("b", 0)],
        [("a", 0), ("a", 1)],
        [("a", 0), (None, 1)],
        [("a", 0), ("b", 1), ("c", 1), ("d", 3)],
    ],
)
def test_a_damaged_index_is_found(spark, rows):
    with pytest.raises(InvariantError, match="not dense"):
        assert_dense(spark.createDataFrame(rows, "id string, idx int"))


@pytest.mark.parametrize("rows", [[("f", "a", 0)], [("f", "a", 1), ("f", "a", 2)], [("f", "a", 1), ("g", "a", 2)]])
def test_damaged_codes_are_found(spark, rows):
    codes = spark.createDataFrame(rows, "feature string, value string, idx int")
    index = ids(spark, ["a"]).selectExpr("id", "0 as idx")
    with pytest.raises(InvariantError, match="not dense"):
        assert_dense(index, codes=codes)
    assert_dense(index, codes=spark.createDataFrame([("f", "a", 2), ("f", "b", 1), ("g", "a", 1)], codes.schema))
