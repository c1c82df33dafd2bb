import pytest

from sparkrec.errors import UserError
from sparkrec.groups.profiles import attribute_values, profiles


@pytest.mark.integration
def test_attributes_are_one_value_or_several_and_empty_ones_go(spark):
    items = spark.createDataFrame(
        [("a", "mug ", ["red", "red", ""], 2.5), ("b", "", None, None), ("c", None, ["blue", "red"], 1.0)],
        "id string, title string, colours array<string>, price double",
    )
    index = spark.createDataFrame([("a", 0), ("b", 1), ("c", 2), ("gone", 3)], "id string, idx int")

    def values(name):
        return sorted((r["item_idx"], r["value"]) for r in attribute_values(items, index, name).collect())

    assert values("title") == [(0, "mug")]
    assert values("colours") == [(0, "red"), (2, "blue"), (2, "red")]
    assert values("price") == [(0, "2.5"), (2, "1.0")]
    with pytest.raises(UserError, match=r"user_groups\.profile=size \(one of title, colours, price\)"):
        attribute_values(items, index, "size")


@pytest.mark.integration
def test_groups_are_described_by_medians_and_by_what_they_take_above_others(spark):
    groups = spark.createDataFrame([(u, 0) for u in range(4)] + [(4, 1)], "user_idx int, group_id int")
    values = spark.createDataFrame(
        [(0, 1.0, 10.0, 5.0), (1, 3.0, 20.0, 5.0), (2, 4.0, 40.0, 6.0), (3, 100.0, 1200.0, 9.5)],
        "user_idx int, recency_days double, frequency double, value double",
    )
    # Of the items 0 and 1 a mug, of 2 a bag, of 3 both, of 4 a hat.
    attributes = spark.createDataFrame(
        [(0, "mug"), (1, "mug"), (2, "bag"), (3, "mug"), (3, "bag"), (4, "hat")], "item_idx int, value string"
    )
    taken = spark.createDataFrame(
        [(0, 0), (0, 1), (1, 1), (2, 2), (0, 2), (4, 3), (3, 9)], "user_idx int, item_idx int"
    )
    first, second = profiles(groups, values, taken, attributes).orderBy("group_id").collect()
    assert (first["size"], first["share"]) == (4, 0.8)
    assert (first["recency_days"], first["frequency"], first["value"]) == (3.5, 30.0, 5.5)
    # Two of four users took each; of all users three took each: equal lifts, equal numbers, so by name.
    assert first["top"] == ["bag (50 %)", "mug (50 %)"]
    assert first["summary"] == ("4 users (80 %), last seen 4 days ago, 30 events, mostly: bag (50 %), mug (50 %)")
    assert (second["size"], second["recency_days"], second["top"]) == (1, None, ["bag (100 %)", "mug (100 %)"])
    assert second["summary"] == "1 user (20 %), mostly: bag (100 %), mug (100 %)"


@pytest.mark.integration
def test_the_value_with_the_largest_lift_comes_first(spark):
    groups = spark.createDataFrame([(u, int(u > 5)) for u in range(12)], "user_idx int, group_id int")
    values = spark.createDataFrame(
        [(u, 2.0, 1500.0, 1.0) for u in range(12)],
        "user_idx int, recency_days double, frequency double, value double",
    )
    attributes = spark.createDataFrame([(0, "bag"), (1, "mug"), (2, "hat")], "item_idx int, value string")
    bags = [(u, 0) for u in (0, 1, 2, 3, 6, 7, 8, 9, 10, 11)]  # four of six here, all six there
    mugs = [(u, 1) for u in (0, 1, 2, 6)]  # three here, one there
    taken = spark.createDataFrame([*bags, *mugs, (6, 2)], "user_idx int, item_idx int")
    found = profiles(groups, values, taken, attributes, n_top=2).orderBy("group_id").collect()
    assert [row["top"] for row in found] == [["mug (50 %)", "bag (67 %)"], ["hat (17 %)", "bag (100 %)"]]
    assert found[0]["summary"].startswith("6 users (50 %), last seen 2 days ago, 1,500 events, mostly: mug (50 %), ")
    bare = profiles(groups, values, taken, None).collect()
    assert [row["top"] for row in bare] == [[], []]
    assert all(row["summary"] == "6 users (50 %), last seen 2 days ago, 1,500 events" for row in bare)
