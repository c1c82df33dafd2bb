import math

import pytest

from sparkrec.config import GateConfig
from sparkrec.evaluation.gate import objections
from sparkrec.evaluation.values import MetricValue

LIMITS = GateConfig(metric="recall", k=20, below_popularity=0.2, below_last=0.1, min_users_share=0.9)


def recall(value, k=20):
    return [MetricValue("recall", k, value, 50), MetricValue("recall", 7, 0.9, 50)]


POPULARITY = recall(0.10)


@pytest.mark.parametrize(
    ("mine", "last", "share", "said"),
    [
        (0.0801, None, 0.9, []),
        (0.0799, None, 0.9, ["recall@20 0.0799 is more than 20% below recent popularity's 0.1000"]),
        (0.0901, 0.1, 1.0, []),
        (0.0899, 0.1, 1.0, ["recall@20 0.0899 is more than 10% below the last published model's 0.1000"]),
        (0.2, None, 0.89, ["lists for 89.0% of the users, less than 90.0%"]),
        (0.2, None, math.nan, ["lists for nan% of the users, less than 90.0%"]),
        (math.nan, None, 1.0, ["recall@20 is not a number"]),
    ],
)
def test_what_speaks_against_a_model(mine, last, share, said):
    assert objections(recall(mine), POPULARITY, None if last is None else recall(last), share, LIMITS) == said


def test_a_metric_that_is_missing_is_an_objection():
    assert objections([], POPULARITY, None, 1.0, LIMITS) == ["recall@20 of the model is missing"]
    assert objections(recall(0.1), [], None, 1.0, LIMITS) == ["recent popularity's recall@20 is missing"]
    assert objections(recall(0.1), POPULARITY, recall(0.1, k=10), 1.0, LIMITS) == [
        "the last published model's recall@20 is missing"
    ]
