"""Features: values, codes, and a row for every id."""

import logging

import pytest

from sparkrec.log import LOGGER
from sparkrec.prepare.features import encode_features, feature_values, new_codes
from sparkrec.settings.formats import Feature

FEATURES = (
    Feature("brand"),
    Feature("genres", kind="multi", separator="|", max_values=2),
    Feature("price", kind="bucket"),
)
ROWS = [
    ("a", " acme ", "rock| jazz|pop|rock", 8.0),
    ("b", "", "||rock|rock|jazz", 7.999999),
    ("c", None, None, None),
    ("d", "Zürich 'x'", "folk", 0.5),
    ("stranger", "other", "pop", -3.0),
]


@pytest.fixture(scope="module")
def attributes(spark):
    return spark.createDataFrame(ROWS, "id string, brand string, genres string, price double")


def test_values(attributes):
    found = {tuple(r) for r in feature_values(attributes, FEATURES, "item").collect()}
    brand, genres, price = "item.brand", "item.genres", "item.price"
    assert found == {
        ("a", brand, "acme"), ("a", genres, "rock"), ("a", genres, "jazz"), ("a", price, "b3"),
        ("b", genres, "rock"), ("b", genres, "jazz"), ("b", price, "b2"),
        ("d", brand, "Zürich 'x'"), ("d", genres, "folk"), ("d", price, "b-1"),
        ("stranger", brand, "other"), ("stranger", genres, "pop"), ("stranger", price, "-b1"),
    }  # fmt: skip


def test_buckets_are_exact_at_powers_of_two(spark):
    powers = range(-60, 61)
    rows = [(f"{k}", 2.0**k) for k in powers] + [(f"{k} below", 2.0**k * (1 - 2**-52)) for k in powers]
    odd = [("0", 0.0), ("-0", -0.0), ("nan", float("nan")), ("inf", float("inf"))]
    given = spark.createDataFrame([*rows, *[(f"odd {n}", x) for n, x in odd]], "id string, price double")
    found = {r["id"]: r["value"] for r in feature_values(given, FEATURES[2:], "item").collect()}
    expected = {f"{k}": f"b{k}" for k in powers} | {f"{k} below": f"b{k - 1}" for k in powers}
    assert found == expected | {"odd 0": "zero", "odd -0": "zero"}


def test_a_number_written_as_text(spark):
    given = spark.createDataFrame([("a", "16"), ("b", "cheap")], "id string, price string")
    assert [(r["id"], r["value"]) for r in feature_values(given, FEATURES[2:], "item").collect()] == [("a", "b4")]


def test_codes_are_dense_in_each_feature_and_never_move(spark):
    def values(rows):
        return spark.createDataFrame(rows, "feature string, value string")

    first, _ = new_codes(values([("f", "b"), ("f", "a"), ("g", "z"), ("f", "b")]), None)
    assert {tuple(r) for r in first.collect()} == {("f", "a", 1), ("f", "b", 2), ("g", "z", 1)}
    later = values([("f", "b"), ("f", "A"), ("f", "c"), ("g", "y"), ("h", "a")])
    second, count = new_codes(later, first)
    assert count == second.count()
    assert {tuple(r) for r in second.collect()} == {("f", "A", 3), ("f", "c", 4), ("g", "y", 2), ("h", "a", 1)}
    assert new_codes(later, first.unionByName(second))[0].collect() == []
    assert second.dtypes == [("feature", "string"), ("value", "string"), ("idx", "int")]


@pytest.mark.integration
def test_every_id_has_a_row(spark, attributes):
    values = feature_values(attributes, FEATURES, "item")
    codes, _ = new_codes(values, None)
    index = spark.createDataFrame([("a", 0), ("b", 1), ("c", 2), ("d", 3), ("new", 4)], "id string, idx int")
    found = encode_features(values, codes, index, FEATURES, "item", "item_idx")
    # brand: Zürich 'x' 1, acme 2, other 3; genres: folk 1, jazz 2, pop 3, rock 4; price: -b1 1, b-1 2, b2 3, b3 4
    assert {tuple(map(str, r)) for r in found.collect()} == {
        ("0", "[2]", "[2, 4]", "[4]"),
        ("1", "[0]", "[2, 4]", "[3]"),
        ("2", "[0]", "[0]", "[0]"),
        ("3", "[1]", "[1]", "[2]"),
        ("4", "[0]", "[0]", "[0]"),
    }
    assert found.dtypes == [("item_idx", "int")] + [(f.name, "array<int>") for f in FEATURES]
    with pytest.raises(Exception, match="value not in feature_index"):
        encode_features(values, codes.where("value != 'acme'"), index, FEATURES, "item", "item_idx").collect()


@pytest.mark.integration
def test_a_feature_without_its_column_is_unknown_and_said(spark, caplog):
    given = spark.createDataFrame([("a", "x")], "id string, brand string")
    index = spark.createDataFrame([("a", 0)], "id string, idx int")
    LOGGER.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING, logger="sparkrec"):
            values = feature_values(given, FEATURES[:2], "item")
            none = feature_values(given.select("id"), FEATURES, "item")
    finally:
        LOGGER.removeHandler(caplog.handler)
    assert "feature=item.genres" in caplog.text
    assert (none.collect(), none.columns) == ([], values.columns)
    found = encode_features(values, new_codes(values, None)[0], index, FEATURES[:2], "item", "item_idx")
    assert [tuple(r) for r in found.collect()] == [(0, [1], [0])]


def test_no_features(spark):
    index = spark.createDataFrame([("a", 0)], "id string, idx int")
    values = feature_values(index, (), "user")
    found = encode_features(values, new_codes(values, None)[0], index, (), "user", "user_idx")
    assert [r.asDict() for r in found.collect()] == [{"user_idx": 0}]
