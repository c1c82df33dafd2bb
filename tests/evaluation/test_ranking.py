import importlib.util
import json
import math
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from sparkrec.errors import InvariantError
from sparkrec.evaluation.ranking import ALL, RankedLists, list_spread, ranking_metrics


def frames(spark, lists, truth):
    rows = [(u, i, r) for u, items in lists.items() for r, i in enumerate(items, 1)]
    pairs = [(u, i) for u, items in truth.items() for i in items]
    return (
        spark.createDataFrame(rows, "user_idx int, item_idx int, rank int"),
        spark.createDataFrame(pairs, "user_idx int, item_idx int"),
    )


def judge(lists, truth, ks, n_items):
    """The metrics of one model."""
    return ranking_metrics({"one": RankedLists(lists, n_items)}, truth, ks)["one"]


@pytest.fixture(scope="module")
def judged(spark):
    """Three models judged at once, by a truth with parts; of the first one user 3 has no list, and 4 no truth."""
    lists = {1: [10, 11, 12], 2: [13, 10, 14], 4: [10, 11, 12]}
    truth = [
        (1, 11, ["frequent_users", "cold_items"]), (1, 20, ["frequent_users", "frequent_items"]), (1, 12, []),
        (1, 21, []), (2, 13, ["cold_users", "frequent_items"]), (3, 10, ["cold_users", "frequent_items"]),
    ]  # fmt: skip
    expected = spark.createDataFrame(truth, "user_idx int, item_idx int, segments array<string>")
    one, _ = frames(spark, lists, {})
    bad, _ = frames(spark, {1: [10, 12]}, {})
    models = {"one": RankedLists(one, 10), "bad": RankedLists(bad, 8), "none": RankedLists(bad.limit(0), 8)}
    return ranking_metrics(models, expected, [1, 3])


@pytest.mark.integration
def test_models_are_judged_side_by_side(judged):
    values = {model: {(v.metric, v.k): v.value for v in parts[ALL]} for model, parts in judged.items()}
    recall = {"one": pytest.approx(5 / 9), "bad": pytest.approx(1 / 9), "none": 0.0}  # bad: one item of user 1
    assert {m: v["recall", 3] for m, v in values.items()} == recall
    assert {m: v["coverage", 3] for m, v in values.items()} == {"one": 0.5, "bad": 0.25, "none": 0.0}
    assert {m: v["users_without_list", None] for m, v in values.items()} == {"one": 1.0, "bad": 2.0, "none": 3.0}


def test_hand_computed_values(judged):
    values = {(v.metric, v.k): v for v in judged["one"][ALL]}
    third = 1 / 3
    log3 = 1 / math.log2(3)
    expected = {
        ("recall", 1): (0 + 1 + 0) * third,
        ("recall", 3): (2 / 3 + 1 + 0) * third,
        ("hit_rate", 1): third,
        ("hit_rate", 3): 2 * third,
        ("mrr", 1): third,
        ("mrr", 3): (0.5 + 1) * third,
        ("map", 3): ((1 / 2 + 2 / 3) / 3 + 1) * third,
        ("ndcg", 3): ((log3 + 0.5) / (1 + log3 + 0.5) + 1) * third,
        ("coverage", 1): 0.2,
        ("coverage", 3): 0.5,
        ("users_without_list", None): 1.0,
    }
    for name, value in expected.items():
        assert values[name].value == pytest.approx(value), name
    assert {v.n for v in values.values()} == {3}


def test_parts_of_the_truth_are_judged_by_themselves(judged):
    recall = {
        part: next((v.value, v.n) for v in values if (v.metric, v.k) == ("recall", 3))
        for part, values in judged["one"].items()
    }
    assert recall == {
        ALL: (pytest.approx((2 / 3 + 1 + 0) / 3), 3),
        "frequent_users": (pytest.approx(1 / 2), 1),
        "cold_users": (pytest.approx((1 + 0) / 2), 2),
        "cold_items": (pytest.approx(1.0), 1),  # of user 1 alone, who took one
        "frequent_items": (pytest.approx((0 + 1 + 0) / 3), 3),
    }
    assert {v.metric for v in judged["one"]["cold_items"]} == {"recall", "ndcg", "map", "mrr", "hit_rate"}


def test_spread_is_that_of_the_definition():
    rng = np.random.default_rng(5)
    shown = np.minimum(rng.zipf(1.5, 40), 60) - 1
    covered, gini = list_spread(Counter(shown[shown > 0].tolist()), len(shown))
    x = np.sort(shown)
    n = len(x)
    pairwise = np.abs(x[:, None] - x[None, :]).sum() / (2 * n * x.sum())  # mean absolute difference / 2 mean
    assert gini == pytest.approx(pairwise)
    assert covered == (shown > 0).mean()
    assert list_spread({1: 12}, 12) == (1.0, pytest.approx(0.0))
    assert list_spread({}, 12) == (0.0, 0.0)
    with pytest.raises(InvariantError, match="catalogue of 5"):
        list_spread({1: 12}, 5)


@pytest.mark.integration
def test_nothing_to_judge_and_doubled_items_are_refused(spark):
    with pytest.raises(InvariantError, match="nothing to judge by"):
        judge(*frames(spark, {1: [2]}, {}), [3], 10)
    with pytest.raises(InvariantError, match="twice"):
        judge(*frames(spark, {1: [2, 3, 2]}, {1: [2]}), [3], 10)


RANX = """
import json, sys
import ranx

qrels, run, names = json.load(sys.stdin)
print(json.dumps(ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), names)))
"""


def by_ranx(truth, run, names):
    """ranx's metrics; in a process that does not compile them, which takes a hundred times what they take."""
    command, env = [sys.executable, "-c", RANX], {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        command, input=json.dumps([truth, run, names]), env=env, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_agrees_with_ranx(spark):
    if importlib.util.find_spec("ranx") is None:
        pytest.skip("ranx is not installed")
    rng = np.random.default_rng(1)
    k, n_items = 10, 60
    truth = {u: set(rng.choice(n_items, rng.integers(1, k + 1), replace=False).tolist()) for u in range(60)}
    lists = {u: rng.choice(n_items, rng.integers(1, 21), replace=False).tolist() for u in range(50)}
    got = {v.metric: v.value for v in judge(*frames(spark, lists, truth), [k], n_items)[ALL] if v.k == k}
    qrels = {str(u): {str(i): 1 for i in items} for u, items in truth.items()}
    run = {str(u): {str(i): 100.0 - r for r, i in enumerate(lists.get(u, []))} for u in truth}
    names = ("recall", "ndcg", "map", "mrr", "hit_rate")
    peer = by_ranx(qrels, run, [f"{name}@{k}" for name in names])
    for name in names:
        assert got[name] == pytest.approx(peer[f"{name}@{k}"]), name
