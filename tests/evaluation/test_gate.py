import math
from dataclasses import replace
from datetime import date

import pytest

from sparkrec.evaluation.gate import Judgement, Last, verdict
from sparkrec.evaluation.protocol import UNKNOWN, difference, protocol, written
from sparkrec.evaluation.values import MetricValue
from sparkrec.settings.config import Config
from sparkrec.settings.format_files import load_format
from sparkrec.settings.sections import EvaluationConfig, GateConfig, SupportConfig

LIMITS = GateConfig(metric="recall", k=20, below_popularity=0.2, below_last=0.1, min_users_share=0.9)
DAY = date(2024, 1, 9)


def recall(value, k=20):
    return [MetricValue("recall", k, value, 50), MetricValue("recall", 7, 0.9, 50)]


def said(mine, last=None, share=1.0, popular=0.1, otherwise="", limits=LIMITS):
    """What the gate has against a model, and its notes; ``last``: the metric of the last one and popularity's then."""
    before = None if last is None else Last(DAY, Judgement(recall(last[0]), recall(last[1])), otherwise)
    found = verdict(Judgement(recall(mine), recall(popular)), before, share, limits)
    return found.against, found.notes


@pytest.mark.parametrize(
    ("mine", "share", "against"),
    [
        (0.0801, 0.9, []),
        (0.0799, 0.9, ["recall@20 0.0799 is more than 20% below recent popularity's 0.1000"]),
        (0.2, 0.89, ["lists for 89.0% of the users, less than 90.0%"]),
        (0.2, math.nan, ["lists for nan% of the users, less than 90.0%"]),
        (math.nan, 1.0, ["recall@20 is not a number"]),
    ],
)
def test_what_speaks_against_a_model(mine, share, against):
    assert said(mine, share=share) == (against, [])


@pytest.mark.parametrize(
    ("mine", "popular", "last", "against"),
    [
        (0.0901, 0.1, (0.1, 0.1), []),
        (0.0899, 0.1, (0.1, 0.1), ["recall@20 0.0899 (0.90 times recent popularity's) is more than 10% below the last "
                                   "published model's 0.1000 (1.00 times) on 2024-01-09"]),
        (0.1, 0.1, (0.5, 0.5), []),  # a week that was easy for everybody: popularity itself is never held back
        (0.3, 0.1, (0.31, 0.1), []),
        (0.3, 0.2, (0.29, 0.1), []),  # popularity was lucky
        (0.2, 0.15, (0.29, 0.1), ["recall@20 0.2000 (1.33 times recent popularity's) is more than 10% below the last "
                                  "published model's 0.2900 (2.90 times) on 2024-01-09"]),
    ],
)  # fmt: skip
def test_a_model_is_worse_than_the_last_one_where_popularity_does_not_explain_it(mine, popular, last, against):
    assert said(mine, last, popular=popular) == (against, [])


@pytest.mark.parametrize(
    ("last", "popular", "otherwise", "why"),
    [
        ((0.9, 0.1), 0.1, "evaluation.holdout_days 3.0 -> 7.0", "evaluation.holdout_days 3.0 -> 7.0"),
        ((0.9, 0.0), 0.1, "", "recent popularity's recall@20 is 0 then"),
        ((0.9, 0.1), 0.0, "", "recent popularity's recall@20 is 0 now"),
        ((0.0, 0.0), 0.0, "", "recent popularity's recall@20 is 0 then and now"),
    ],
)
def test_what_says_something_else_is_not_compared_and_that_is_said(last, popular, otherwise, why):
    note = f"not compared with the model of 2024-01-09: {why}"
    assert said(0.1, last, popular=popular, otherwise=otherwise) == ([], [note])


def test_another_length_of_lists_does_not_hold_models_back_for_good():
    before = Last(DAY, Judgement(recall(0.1, k=10), recall(0.1, k=10)))
    found = verdict(Judgement(recall(0.1), recall(0.1)), before, 1.0, LIMITS)
    assert (found.against, found.notes) == (
        [], ["not compared with the model of 2024-01-09: its recall@20 was not judged"],
    )  # fmt: skip


def test_sessions_may_count_alike_where_they_are_judged():
    """One long session decides by event, and no more than another by session."""
    by_session = [MetricValue("recall_per_session", 20, 0.05, 9)]
    popular = [*recall(0.1), MetricValue("recall_per_session", 20, 0.2, 9)]
    found = [
        verdict(Judgement(recall(0.1) + more, popular if more else recall(0.1)), None, 1.0, replace(LIMITS, per=per))
        for more, per in ((by_session, "event"), (by_session, "session"), ([], "session"))  # the last: of users
    ]
    message = "recall_per_session@20 0.0500 is more than 20% below recent popularity's 0.2000"
    assert [one.against for one in found] == [[], [message], []]


def test_a_metric_of_the_night_that_is_missing_is_an_objection():
    assert verdict(Judgement([], recall(0.1)), None, 1.0, LIMITS).against == ["recall@20 of the model is missing"]
    assert verdict(Judgement(recall(0.1), []), None, 1.0, LIMITS).against == [
        "recent popularity's recall@20 is missing"
    ]


def test_a_protocol_is_what_the_metrics_of_its_holdout_depend_on():
    config, fmt = Config(), load_format("invoices")

    def changed(split, **sections):
        other = replace(config, **sections)
        return difference(written(protocol(config, fmt, split)), written(protocol(other, fmt, split)))

    for split in ("holdout_users", "holdout_sessions", "holdout_baskets"):
        longer = changed(split, evaluation=EvaluationConfig(holdout_days=14.0, k=[5]))
        assert longer == "evaluation.holdout_days 7.0 -> 14.0"
        cut = changed(split, evaluation=EvaluationConfig(cutoff="2024-01-01"))
        assert cut == "evaluation.cutoff not set -> set, evaluation.holdout_days 7.0 -> not set"
        support = replace(config.prepare, support=SupportConfig(min_user_events=2))
        assert changed(split, prepare=support) == "prepare.support.min_user_events 1 -> 2"
        assert changed(split, als=replace(config.als, rank=7), gate=GateConfig(k=10)) == ""
    shorter = replace(config.prepare, sessions=replace(config.prepare.sessions, gap_minutes=10.0))
    assert changed("holdout_sessions", prepare=shorter) == "prepare.sessions.gap_minutes 30.0 -> 10.0"
    assert changed("holdout_users", prepare=shorter) == ""
    weighed = replace(fmt, event_weights={**fmt.event_weights, "purchase": 2.0})
    mine, other = (written(protocol(config, one, "holdout_users")) for one in (fmt, weighed))
    assert difference(mine, other).startswith("event_weights ")
    assert difference(None, mine) == UNKNOWN
