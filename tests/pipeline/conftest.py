"""A second night on the warehouse of the shared one."""

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl
import pytest

from tests.nights import GATED, TRAIN_WARM, WARM, Place, goes_on

STRICT = "gate.below_last=-50"  # fifty times better than the last one


@dataclass(frozen=True)
class Later:
    """The shared night's warehouse after a second night.

    The ALS of the second night was held back by a gate that was too strict, and then published by a milder one. Then
    the other models were trained, beginning with those of the first night, and published.

    Attributes:
        place: Log and warehouse. Tests must not change them.
        first: The first night.
        second: The second one, three days later.
        strict: Exit code of the attempt with the strict gate.
        mild: Exit code of the one with the milder gate.
        after_strict: Table ``topk_als`` after the strict gate.
        after_mild: And after the milder one.
    """

    place: Place
    first: date
    second: date
    strict: int
    mild: int
    after_strict: pl.DataFrame
    after_mild: pl.DataFrame


@pytest.fixture(scope="session")
def going_on(night, tmp_path_factory):
    """The shared night, whose log has four more days. Tests must not change it."""
    return goes_on(night, tmp_path_factory.mktemp("going-on"), days=4)


@pytest.fixture(scope="session")
def later(spark, going_on, tmp_path_factory):
    """The shared night and another one after it, as ``Later``."""
    place = going_on.copied_to(tmp_path_factory.mktemp("later") / "warehouse")
    second = place.last + timedelta(days=3)
    strict = place.run(spark, second, *GATED, STRICT)
    after_strict = place.table("topk_als")
    mild = place.run(spark, second, *GATED)
    after_mild = place.table("topk_als")
    assert place.run(spark, second, *WARM, only=TRAIN_WARM) == 0
    return Later(place, place.last, second, strict, mild, after_strict, after_mild)
