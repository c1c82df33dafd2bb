"""Association rules against values by hand and mlxtend; completion against applying each rule to each basket."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlxtend.frequent_patterns import association_rules, fpgrowth

from sparkrec.errors import UserError
from sparkrec.models.rules.mining import complete, load_rules, mine_rules, save_rules
from sparkrec.models.rules.settings import RulesConfig

SCHEMA = (
    "antecedent array<int>, consequent int, support double, confidence double, lift double, leverage double, "
    "n_baskets bigint"
)
MINERS = ["level_wise", "fp_growth"]


def frame(spark, rows):
    return spark.createDataFrame([(row,) for row in rows], "items array<int>")


def by_sides(model):
    return {(tuple(r["antecedent"]), r["consequent"]): r for r in model.rules.collect()}


@pytest.mark.integration
@pytest.mark.parametrize("miner", MINERS)
def test_hand_computed_rules(spark, miner):
    # Bread 3, butter 1, jam 7, beer 9.
    rows = [[3, 1, 7], [3, 1], [1, 3, 9], [3, 7], [9]]
    model = mine_rules(frame(spark, rows), RulesConfig(min_support=0.4, min_confidence=0.6, max_itemset=3, miner=miner))
    assert model.rules.schema.simpleString() == "struct<" + SCHEMA.replace(" ", ":").replace(",:", ",") + ">"
    found = by_sides(model)
    # In two baskets or more: bread 4, butter 3, jam 2, beer 2; bread and butter 3, bread and jam 2.
    assert found.keys() == {((1,), 3), ((3,), 1), ((7,), 3)}
    butter = found[(1,), 3]
    assert (butter["support"], butter["confidence"], butter["n_baskets"]) == (0.6, 1.0, 3)
    assert butter["lift"] == pytest.approx(1.0 / 0.8)
    assert butter["leverage"] == pytest.approx(0.6 - 0.6 * 0.8)
    assert found[(3,), 1]["confidence"] == 0.75
    assert found[(7,), 3]["leverage"] == pytest.approx(0.4 - 0.4 * 0.8)
    assert model.meta == {
        "baskets": 5, "minimum": 2, "items": 4, "rare_entries": 0, "cut_baskets": 0, "cut_entries": 0, "sets_of_2": 2,
    }  # fmt: skip


@pytest.mark.integration
@pytest.mark.parametrize(
    ("miner", "seed", "support", "confidence", "lift"),
    [("level_wise", 1, 0.05, 0.3, 1.0), ("level_wise", 2, 0.1, 0.05, 0.0), ("fp_growth", 1, 0.05, 0.3, 1.0)],
)
def test_rules_are_those_of_mlxtend(spark, miner, seed, support, confidence, lift):
    rng = np.random.default_rng(seed)
    popular = 1 / np.arange(1, 13)
    rows = [rng.choice(12, rng.integers(1, 8), replace=False, p=popular / popular.sum()).tolist() for _ in range(60)]
    config = RulesConfig(support, confidence, lift, max_itemset=4, miner=miner)
    ours = by_sides(mine_rules(frame(spark, rows).repartition(3), config))
    held = pd.DataFrame([[i in row for i in range(12)] for row in rows])
    sets = fpgrowth(held, min_support=support, max_len=4)
    theirs = association_rules(sets, num_itemsets=len(held), metric="confidence", min_threshold=confidence)
    theirs = theirs[(theirs["consequents"].map(len) == 1) & (theirs["lift"] >= lift)]
    expected = {(tuple(sorted(r.antecedents)), next(iter(r.consequents))): r for r in theirs.itertuples()}
    assert max(len(antecedent) for antecedent, _ in expected) == 3
    assert ours.keys() == expected.keys()
    for sides, rule in ours.items():
        for name in ("support", "confidence", "lift", "leverage"):
            assert rule[name] == pytest.approx(getattr(expected[sides], name), abs=1e-12), (sides, name)
        assert rule["n_baskets"] == round(rule["support"] * 60)


@pytest.mark.integration
def test_shares_are_of_all_baskets_as_they_are_mined(spark):
    rows = [[1, 2, 3], [1, 2], [1, 2], [2, 3], [8], [9], [], []]
    found = by_sides(mine_rules(frame(spark, rows), RulesConfig(min_support=0.01, min_lift=0.0, max_basket_items=2)))
    # The first basket loses 3, which is left in one basket with 2: too few for a rule.
    assert found.keys() == {((1,), 2), ((2,), 1)}
    assert found[(2,), 1]["support"] == 3 / 8
    assert found[(2,), 1]["confidence"] == 3 / 4
    assert found[(2,), 1]["lift"] == pytest.approx(3 / 4 / (3 / 8))


@pytest.mark.integration
def test_nothing_is_mined_from_no_baskets_or_too_many_candidates(spark):
    with pytest.raises(UserError, match="no baskets to find rules in"):
        mine_rules(frame(spark, []), RulesConfig())
    endless = frame(spark, [list(range(40))] * 4)
    held = set(spark.sparkContext._jsc.getPersistentRDDs())
    with pytest.raises(UserError, match=r"more than rules\.max_rules"):
        mine_rules(endless, RulesConfig(max_itemset=20))
    assert set(spark.sparkContext._jsc.getPersistentRDDs()) <= held  # what was read is let go


@pytest.mark.integration
def test_rules_are_kept_with_their_description(spark, tmp_path):
    path = str(tmp_path / "rules")
    with pytest.raises(UserError, match="no rules"):
        load_rules(spark, path)
    model = mine_rules(frame(spark, [[1, 2], [2, 1], [1]]), RulesConfig())
    save_rules(model, path, {"settings": {"min_support": 0.001}})
    again = load_rules(spark, path)
    assert again.meta == {"settings": {"min_support": 0.001}}
    assert by_sides(again) == by_sides(model)
    assert len(by_sides(again)) == 2
    (tmp_path / "rules" / "model.json").unlink()  # as a write that broke off leaves it
    with pytest.raises(UserError, match="no rules"):
        load_rules(spark, path)


def rules_frame(spark, rules):
    rows = [(sorted(a), c, 0.1, confidence, lift, 0.0, 2) for a, c, confidence, lift in rules]
    return spark.createDataFrame(rows, SCHEMA)


def completed(lists, *keys):
    found = {}
    for row in sorted(lists.collect(), key=lambda r: r["rank"]):
        entries = found.setdefault(tuple(row[k] for k in keys), [])
        assert row["rank"] == len(entries) + 1
        entries.append((row["item_idx"], row["score"]))
    return found


def test_a_basket_is_completed_by_the_best_rule_for_each_item(spark):
    rules = rules_frame(spark, [
        ([1], 5, 0.5, 2.0),
        ([1, 2], 5, 0.75, 1.5),  # a larger confidence
        ([2], 6, 0.5, 3.0),
        ([1], 7, 0.5, 3.0),
        ([1], 8, 0.5, 4.0),  # equal confidences: by lift, then by number
        ([2], 1, 1.0, 9.0),  # in the basket
        ([3], 9, 1.0, 9.0),  # does not apply
        ([1, 3], 9, 1.0, 9.0),
    ])  # fmt: skip
    baskets = spark.createDataFrame([("a", [2, 1]), ("b", [1]), ("c", [4]), ("d", [])], "case string, items array<int>")
    lists = complete(baskets, rules, key="case", k=3)
    assert lists.schema.simpleString() == "struct<case:string,item_idx:int,rank:int,score:float>"
    assert completed(lists, "case") == {
        ("a",): [(5, 0.75), (8, 0.5), (6, 0.5)],
        ("b",): [(8, 0.5), (7, 0.5), (5, 0.5)],
    }


@pytest.mark.integration
def test_what_was_seen_is_left_out_by_the_keys_that_it_has(spark):
    rules = rules_frame(spark, [([1], item, 0.9 - item / 100, 1.0) for item in range(2, 7)])
    baskets = spark.createDataFrame(
        [(1, "x", [1]), (1, "y", [1, 3]), (2, "x", [1])], "user_idx int, case string, items array<int>"
    )
    seen = spark.createDataFrame([(1, 2), (1, 4), (9, 5)], "user_idx int, item_idx int")
    lists = completed(complete(baskets, rules, key=["user_idx", "case"], k=2, seen=seen), "user_idx", "case")
    assert {key: [item for item, _ in entries] for key, entries in lists.items()} == {
        (1, "x"): [3, 5], (1, "y"): [5, 6], (2, "x"): [2, 3],
    }  # fmt: skip


item_sets = st.sets(st.integers(0, 7), max_size=6)


@pytest.mark.integration
@settings(max_examples=3, deadline=None)
@given(
    baskets=st.lists(item_sets, min_size=20, max_size=30),
    rules=st.dictionaries(
        st.tuples(st.frozensets(st.integers(0, 7), min_size=1, max_size=3), st.integers(0, 7)),
        st.tuples(st.sampled_from([0.25, 0.5, 0.75]), st.sampled_from([1.0, 2.0])),
        min_size=20,
        max_size=60,
    ),
    seen=st.sets(st.tuples(st.integers(0, 29), st.integers(0, 7)), min_size=5, max_size=20),
    k=st.integers(1, 5),
)
def test_completion_is_what_each_rule_says_of_each_basket(spark, baskets, rules, seen, k):
    rules = {(a, c): measures for (a, c), measures in rules.items() if c not in a}
    expected = {}
    for number, basket in enumerate(baskets):
        best = {}
        for (antecedent, item), measures in rules.items():
            if antecedent <= basket and item not in basket and (number, item) not in seen:
                best[item] = max(best.get(item, (0.0, 0.0)), measures)
        order = sorted(best, key=lambda item: (-best[item][0], -best[item][1], item))[:k]
        if order:
            expected[(number,)] = [(item, best[item][0]) for item in order]
    frame = spark.createDataFrame([(n, sorted(b)) for n, b in enumerate(baskets)], "case int, items array<int>")
    pairs = spark.createDataFrame(sorted(seen), "case int, item_idx int")
    given_rules = rules_frame(spark, [(a, c, *measures) for (a, c), measures in rules.items()])
    assert completed(complete(frame, given_rules, key="case", k=k, seen=pairs), "case") == expected
