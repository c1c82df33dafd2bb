import math

import pytest

from sparkrec.evaluation.gate import Thresholds, objections
from sparkrec.evaluation.values import MetricValue

LIMITS = Thresholds(metric="recall", k=20, max_loss=0.2, min_users_share=0.9)
BASELINE = [MetricValue("recall", 20, 0.10, 50), MetricValue("recall", 10, 0.9, 50)]


@pytest.mark.parametrize(
    ("recall", "share", "said"),
    [
        (0.0801, 0.9, []),
        (0.0799, 0.9, ["recall@20 0.0799 is more than 20% below the baseline's 0.1000"]),
        (0.2, 0.89, ["lists for 89.0% of the users, less than 90.0%"]),
        (0.2, math.nan, ["lists for nan% of the users, less than 90.0%"]),
        (math.nan, 1.0, ["recall@20 is not a number"]),
    ],
)
def test_what_speaks_against_a_model(recall, share, said):
    assert objections([MetricValue("recall", 20, recall, 50)], BASELINE, share, LIMITS) == said


def test_a_metric_that_is_missing_is_an_objection():
    assert objections([], BASELINE, 1.0, LIMITS) == ["recall@20 is missing for the model"]
    assert objections(BASELINE, [], 1.0, LIMITS) == ["recall@20 is missing for the baseline"]
