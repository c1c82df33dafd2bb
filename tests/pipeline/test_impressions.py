"""What was shown and not taken stays in the events: no table that anything is learnt from knows of it."""

from datetime import date

import polars as pl
import pytest

from tests.nights import Place

BEHAVIORS = """\
1\tU1\t11/11/2019 9:05:58 AM\tN9\tN1-1 N2-0 N3-0
2\tU1\t11/11/2019 9:06:10 AM\tN9\tN4-0 N5-1
3\tU2\t11/11/2019 9:07:00 AM\t\tN1-0 N2-0
"""


@pytest.mark.integration
def test_impressions_are_kept_and_reach_no_other_table(spark, tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "behaviors.tsv").write_text(BEHAVIORS)
    place = Place(tmp_path / "log", tmp_path / "warehouse", "mind", date(2019, 11, 11), 1)
    stages = ("ingest", "index", "prepare")
    plain = ("prepare.support.min_item_events=1", "prepare.text.method=none")
    assert place.run(spark, place.last, *plain, only=stages) == 0
    events = place.table("events").group_by("event_type").len().sort("event_type").rows()
    assert events == [("click", 2), ("impression", 5)]
    assert place.table("runs").filter(pl.col("stage") == "ingest")["message"].to_list() == [
        "1 new files, 5 impressions"
    ]
    assert sorted(place.table("item_index")["id"].to_list()) == ["N1", "N5"]
    assert place.table("user_index")["id"].to_list() == ["U1"]
    assert place.table("interactions")["event_type"].to_list() == ["click", "click"]
    assert place.table("sessions")["items"].to_list() == [[0, 1]]
    assert place.table("user_item").height == 2
