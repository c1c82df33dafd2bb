"""Stages that are run by themselves: on tables of another night, on settings that changed, without the lock."""

import json
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from sparkrec.errors import UserError
from sparkrec.models.night import Inputs
from sparkrec.pipeline.nightly import Choice, _require_own, night_of, plan_nightly, run_nightly, run_stage
from sparkrec.pipeline.stage import Stage
from sparkrec.pipeline.stages import STAGES
from sparkrec.settings.config import load_config
from sparkrec.warehouse import store
from sparkrec.warehouse.cards import read_card
from sparkrec.warehouse.ledger import Ledger, StageResult
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.lock import LOCK, locked
from sparkrec.warehouse.tables import COPURCHASE, EVENTS, INTERACTIONS, PREPARED, SESSIONS, USER_ITEM
from tests.nights import make_place

pytestmark = pytest.mark.slow

READERS = [stage for stage in STAGES.values() if {*stage.inputs, *stage.optional} & set(PREPARED)]


@pytest.fixture(scope="module")
def place(spark, tmp_path_factory):
    """A warehouse whose tables two nights have prepared, one after the other; no model is trained."""
    place = make_place(tmp_path_factory.mktemp("alone"), days=6, events=600, more=("models=[als]",))
    for night in (place.last - timedelta(days=2), place.last):
        prepare(spark, place, night)
    return place


def prepare(spark, place, night):
    stages = Choice(only=("ingest", "index", "prepare"))
    assert run_nightly(load_config(None, place.settings()), night.isoformat(), stages, spark=spark) == 0


def a_night(spark, place, run_date, *more):
    return night_of(spark, load_config(None, place.settings(*more)), run_date)


def versions(night, *tables):
    found = {table.name: store.version(night.spark, night.warehouse, table) for table in tables}
    return {name: version for name, version in found.items() if version is not None}


def last_run(place):
    return place.table("runs").sort("ended_at").row(-1, named=True)


def test_every_stage_refuses_what_a_later_night_has_prepared(spark, place):
    earlier, later = (a_night(spark, place, place.last - timedelta(days=days)) for days in (2, 0))
    mine, theirs = (Ledger(night.warehouse, night.run_date) for night in (earlier, later))
    assert len(READERS) > 15
    for stage in READERS:
        pinned = versions(later, *stage.inputs, *stage.optional)
        _require_own(later, stage, pinned, theirs)
        with pytest.raises(UserError, match=rf"of {earlier.run_date}, but .* is as of another night") as refused:
            _require_own(earlier, stage, pinned, mine)
        assert f"written by the night {later.run_date} " in str(refused.value)
        assert f"--run-date {earlier.run_date}" in str(refused.value)


def test_a_stage_by_itself_after_a_later_night_is_refused_in_a_line_and_a_row_of_runs(spark, place):
    config, first = load_config(None, place.settings()), (place.last - timedelta(days=2)).isoformat()
    alone = Choice(only=("train_als",))
    [(name, _, why)] = plan_nightly(config, first, alone, spark=spark)
    assert name == "train_als"
    assert "as of another night" in why
    with pytest.raises(UserError, match="as of another night") as refused:
        run_nightly(config, first, alone, spark=spark)
    row = last_run(place)
    assert (row["stage"], row["status"], row["message"]) == ("train_als", "refused", str(refused.value))
    assert not (place.warehouse / "models" / "als" / first).exists()


def test_no_input_holds_what_came_after_the_night(spark, place):
    """Also where a stage was handed tables of a later night all the same."""
    known_at = {INTERACTIONS: "ts", SESSIONS: "end_ts", COPURCHASE: "end_ts", USER_ITEM: "last_ts"}
    earlier, later = (a_night(spark, place, place.last - timedelta(days=days)) for days in (2, 0))
    pinned = versions(later, *known_at)
    for table, column in known_at.items():
        whole = place.table(table.name).with_columns(pl.col(column).dt.convert_time_zone("UTC"))
        cut = whole.filter(pl.col(column) < earlier.as_of)
        assert 0 < cut.height < whole.height
        assert Inputs(earlier, pinned).read(table).count() == cut.height, table.name
        assert Inputs(later, pinned).read(table).count() == whole.height, table.name


def test_what_support_leaves_out_is_said_and_listed_where_no_training_needs_it(spark, place):
    said = place.table("runs").filter(pl.col("stage") == "prepare").sort("ended_at")["message"][-1]
    events = place.table("interactions").group_by("item_idx").len()
    weak = events.filter(pl.col("len") < 5)
    rows, of = weak["len"].sum(), events["len"].sum()
    assert 0 < weak.height < events.height
    assert json.loads(said)["left_out"] == (
        f"{weak.height} of {events.height} items ({weak.height / events.height:.1%}), {rows} of {of:,} rows "
        f"({rows / of:.1%}) by prepare.support (min_item_events=5, min_user_events=1)"
    )
    assert place.run(spark, place.last, "models=[content]", "topk.k=20", only=("train_content", "topk")) == 0
    names = place.table("item_index").join(weak, left_on="idx", right_on="item_idx", how="semi")["id"]
    listed = place.table("topk_content").filter(pl.col("item_id").is_in(names.implode()))
    assert listed.filter(pl.col("source") == "model").height > 0


def test_a_model_of_other_settings_has_another_version(spark, place):
    """Of settings outside of the model's own section: how long its hold-out is."""
    known = {}
    for days in ("3", "2", "3"):
        night = a_night(spark, place, place.last, f"evaluation.holdout_days={days}")
        run_stage(night, STAGES["train_als"], Ledger(night.warehouse, night.run_date))
        version = read_card(night.warehouse, "als", night.run_date).model_version
        assert known.setdefault(days, version) == version
    assert known["3"] != known["2"]


def test_a_night_that_lost_its_lock_writes_no_more(spark, place, tmp_path):
    target = place.at(tmp_path / "warehouse")
    night = a_night(spark, target, target.last)
    thief = json.dumps(
        {"run_id": "thief", "host": "elsewhere", "pid": 1, "started": "1", "expires_at": "2999-01-01T00:00:00+00:00"}
    )

    def robbed(night, _):
        (target.warehouse / LOCK).write_text(thief)
        return StageResult()

    def steal(night):
        ledger = Ledger(night.warehouse, night.run_date)
        run_stage(night, Stage("stolen", (), lambda _: (), robbed), ledger)

    held = locked(night.warehouse.path, "me", 60)
    owned = replace(night, lock=held.__enter__())
    with pytest.raises(UserError, match="lock was lost while me ran"):
        steal(owned)
    frame = spark.createDataFrame([], EVENTS.ddl)
    for write in (store.append, store.overwrite, store.upsert):
        with pytest.raises(UserError, match="lock was lost"):
            write(frame, owned.warehouse, EVENTS)
    with pytest.raises(UserError, match="lock was lost"):
        store.replace_night(frame, owned.warehouse, EVENTS, night.run_date)
    with pytest.raises(UserError, match="lock was lost"):
        store.delete_where(spark, owned.warehouse, EVENTS, frame["ts"].isNull())
    assert [path.name for path in target.warehouse.iterdir()] == [LOCK]
    with pytest.raises(UserError, match="lock was lost"):
        held.__exit__(None, None, None)
    assert Warehouse("w") == Warehouse("w", owned.warehouse.fence)  # the same place, fenced or not
