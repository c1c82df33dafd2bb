"""V-SKNN against a plain reference, and the ranks of next items by counting."""

import math
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from sparkrec.errors import InvariantError, UserError
from sparkrec.evaluation.session_events import left_out
from sparkrec.models.session_neighbours import nearest as session_neighbours
from sparkrec.models.session_neighbours.nearest import (
    load_session_neighbours,
    next_item_ranks,
    save_session_neighbours,
    session_neighbour_lists,
    trained_sessions,
)
from sparkrec.models.session_neighbours.settings import SessionNeighboursConfig
from sparkrec.models.session_neighbours.votes import LONGEST, Index, TrainedSessions, decayed, looked_at

NOBODY = np.array([-1])
DECAYS = {
    "linear": lambda s, n: (n - s + 1) / n,
    "quadratic": lambda s, n: ((n - s + 1) / n) ** 2,
    "harmonic": lambda s, n: 1 / s,
    "same": lambda s, n: 1.0,
}


def reference(newest_first, current, config, own_items=1.0, users=(), user=-1, itself=-1):
    """Item → score, by loops; ``newest_first`` are lists of items, of these users where they are known.

    The session at the place ``itself`` does not vote.
    """
    current = current[-config.last_items :]
    n = len(current)
    weights = {item: DECAYS[config.decay](n - place, n) for place, item in enumerate(current)}  # the last one counts
    length = math.sqrt(sum(w * w for w in weights.values()))
    candidates = [n for n, items in enumerate(newest_first) if n != itself and set(items) & set(weights)]
    if config.sample:
        candidates = candidates[: config.sample]
    nearest = []
    for number in candidates:
        items = set(newest_first[number])
        cosine = sum(weights[i] for i in sorted(items & set(weights))) / (length * math.sqrt(len(items)))
        if user >= 0 and users[number] == user:
            cosine *= config.same_user
        nearest.append((-np.float32(cosine), number, cosine))
    scores = {}
    for _, number, cosine in sorted(nearest)[: config.neighbours]:
        items = set(newest_first[number])
        step = next(s for s, item in enumerate(reversed(current), start=1) if item in items)
        for item in items:
            scores[item] = scores.get(item, 0.0) + cosine * DECAYS[config.decay](step, n)
    n_with = {item: sum(item in items for items in newest_first) for item in scores}
    scores = {i: s * math.log(len(newest_first) / n_with[i]) ** config.idf for i, s in scores.items()}
    return {i: s * (own_items if i in current else 1.0) for i, s in scores.items()}


def trained_of(newest_first, n_items, users=None):
    held = np.zeros((len(newest_first), n_items))
    for number, items in enumerate(newest_first):
        held[number, items] = 1.0
    users = np.full(len(newest_first), -1) if users is None else np.array(users)
    return TrainedSessions(csr_matrix(held), users, np.arange(len(newest_first))[::-1] * 7)


def number_of(place, newest_first):
    """What ``trained_of`` calls the session at a place; -1 for none."""
    return (len(newest_first) - 1 - place) * 7 if 0 <= place < len(newest_first) else -1


items_of_a_session = st.lists(st.integers(0, 9), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(
    sessions=st.lists(items_of_a_session, min_size=1, max_size=12),
    current=st.lists(items_of_a_session, min_size=1, max_size=4),
    config=st.builds(
        SessionNeighboursConfig,
        neighbours=st.integers(1, 6),
        sample=st.sampled_from([0, 0, 1, 4]),
        decay=st.sampled_from(list(DECAYS)),
        last_items=st.integers(1, 9),
        idf=st.sampled_from([0.0, 0.5, 1.0]),
        same_user=st.sampled_from([1.0, 4.0, 0.25]),
    ),
    users=st.lists(st.integers(-1, 1), min_size=16, max_size=16),
    themselves=st.lists(st.integers(-1, 6), min_size=4, max_size=4),
    own_items=st.sampled_from([1.0, 0.25, 0.0]),
    at_once=st.sampled_from([1, 10, 1000]),
)
def test_scores_equal_the_reference(sessions, current, config, users, themselves, own_items, at_once):
    asking, users = np.array(users[:4]), users[4:]
    index = Index.build(trained_of(sessions, 10, users[: len(sessions)]), config, own_items)
    index = Index(**{**index.__dict__, "at_once": at_once})
    known = [[item for item in items if index.trained[item]] for items in current]
    ends = np.cumsum([len(items) for items in known])
    flat = np.array([item for items in known for item in items], dtype=np.int64)
    itself = index.places(np.array([number_of(place, sessions) for place in themselves]))[: len(ends)]
    asked = looked_at(flat, np.concatenate([[0], ends[:-1]]), ends, asking[: len(ends)], config.last_items, itself)
    found = np.zeros((len(current), 10))
    for block, scores in index.scores(asked):
        found[block] = scores.toarray()
    for row, items in enumerate(known):
        whose = users, asking[row], themselves[row]
        expected = reference(sessions, items, config, own_items, *whose) if items else {}
        assert found[row] == pytest.approx([expected.get(item, 0.0) for item in range(10)], rel=1e-6, abs=1e-12)


def test_decays_by_hand():
    steps, lengths = np.array([1, 2, 4]), np.array([4, 4, 4])
    assert decayed(steps, lengths, "linear").tolist() == [1.0, 0.75, 0.25]
    assert decayed(steps, lengths, "quadratic").tolist() == [1.0, 0.5625, 0.0625]
    assert decayed(steps, lengths, "harmonic").tolist() == [1.0, 0.5, 0.25]
    assert decayed(steps, lengths, "same").tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(InvariantError, match="no decay log"):
        decayed(steps, lengths, "log")


def test_the_last_shared_item_is_found_in_the_longest_session():
    n = LONGEST
    trained = trained_of([[0, n - 1, n], list(range(n - 1)), [n]], n + 1)
    config = SessionNeighboursConfig(last_items=n, decay="harmonic", idf=0.0)
    index = Index.build(trained, config)
    flat = np.arange(n)  # item n - 1 is the last event
    ((_, scores),) = index.scores(looked_at(flat, np.array([0]), np.array([n]), NOBODY, n))
    harmonic = [1 / s for s in range(1, n + 1)]  # of items n - 1, n - 2, …, 0
    length = math.sqrt(sum(w * w for w in harmonic))
    first = (harmonic[0] + harmonic[-1]) / (length * math.sqrt(3))
    second = sum(harmonic[1:]) / (length * math.sqrt(n - 1)) * harmonic[1]  # its last shared item is the second last
    assert scores.toarray()[0, [n, n - 1, 0, 1]] == pytest.approx([first, first, first + second, second])
    with pytest.raises(UserError, match=f"at most {n} items"):
        Index.build(trained, SessionNeighboursConfig(last_items=n + 1))


N_ITEMS = 14
START = datetime(2020, 1, 1)
OLDER = [[0, 1, 2, 3], [1, 2, 5], [5, 6, 1], [7, 8], [8, 7, 0], [2, 3, 5, 5], [10, 11], [1, 2, 5]]
CONFIG = SessionNeighboursConfig(neighbours=4, decay="linear", last_items=3, idf=1.0)
# 4, 9 and 12 are in no trained session, 50 is newer than the model.
CURRENT = {"a": [0, 4, 1, 2], "b": [9, 7], "c": [50, 12], "d": [5, 6, 1, 5, 3, 2], "e": [8], "f": [10, 5]}
USERS = {"a": 1, "d": 2, "f": 1}  # the others are anonymous


@pytest.fixture(scope="module")
def older(spark):
    rows = [(f"s{n}", n % 3 or None, START.replace(hour=n // 2), items) for n, items in enumerate(OLDER)]
    schema = "session_id string, user_idx int, start_ts timestamp, items array<int>"  # two at a time
    return spark.createDataFrame(rows[::-1], schema).persist()


@pytest.fixture(scope="module")
def current(spark):
    rows = [(name, USERS.get(name), items) for name, items in CURRENT.items()]
    frame = spark.createDataFrame(rows, "session_id string, user_idx int, items array<int>")
    return frame.repartition(2).persist()


def known(items):
    return [i for i in items if any(i in other for other in OLDER)]


def expected_scores(items, user=None):
    users = [n % 3 or -1 for n in range(len(OLDER))][::-1]
    asks = -1 if user is None else user
    scores = reference(OLDER[::-1], known(items), CONFIG, users=users, user=asks) if known(items) else {}
    return {item: float(np.float32(score)) for item, score in scores.items()}


def test_trained_sessions_are_sets_the_latest_first(older):
    trained = trained_sessions(older, N_ITEMS)
    assert [sorted(row.indices.tolist()) for row in trained.items] == [sorted(set(s)) for s in OLDER[::-1]]
    assert set(trained.items.data.tolist()) == {1.0}
    assert set(np.flatnonzero(~trained.trained).tolist()) == {4, 9, 12, 13}
    with pytest.raises(InvariantError, match="not within 0 … 9"):
        trained_sessions(older, 10)
    with pytest.raises(UserError, match="no sessions"):
        trained_sessions(older.where("false"), N_ITEMS)


@pytest.mark.integration
def test_lists_hold_what_the_nearest_sessions_had(spark, older, current):
    trained = trained_sessions(older, N_ITEMS)
    seen = spark.createDataFrame([("a", 3), ("d", 1), ("d", 13)], "session_id string, item_idx int")
    rows = session_neighbour_lists(
        current, trained, CONFIG, key="session_id", k=4, seen=seen, without=np.array([5, 99]), block_mb=1
    )
    found = {}
    for row in sorted(rows.collect(), key=lambda r: (r["session_id"], r["rank"])):
        found.setdefault(row["session_id"], []).append((row["item_idx"], row["score"]))
        assert row["rank"] == len(found[row["session_id"]])
    hidden = {"a": {3, 5}, "d": {1, 5}}
    for name, items in CURRENT.items():
        scores = expected_scores(items, USERS.get(name))
        allowed = [i for i in scores if i not in hidden.get(name, {5})]
        best = sorted(allowed, key=lambda i: (-scores[i], i))[:4]
        assert [item for item, _ in found.get(name, [])] == best, name
        assert [score for _, score in found.get(name, [])] == pytest.approx([scores[i] for i in best], rel=1e-6)
    assert "c" not in found
    assert found["b"]
    with_column = current.join(seen.groupBy("session_id").agg({"item_idx": "collect_list"}), "session_id", "left")
    with_column = with_column.withColumnRenamed("collect_list(item_idx)", "seen")
    again = session_neighbour_lists(
        with_column, trained, CONFIG, key="session_id", k=4, without=np.array([5, 99]), partitions=1
    )
    assert sorted(again.collect()) == sorted(rows.collect())


@pytest.mark.integration
def test_a_session_that_is_among_those_that_vote_does_not_vote_itself(older):
    """What a night publishes for its own sessions is what it would be without them, as where the model is judged."""
    config = SessionNeighboursConfig(neighbours=4, idf=0.0)  # the frequencies know of all sessions
    trained = trained_sessions(older, N_ITEMS)
    found = session_neighbour_lists(older, trained, config, key="session_id", k=9).collect()
    expected = []
    for row in older.select("session_id").collect():
        itself = older["session_id"] == row["session_id"]
        others = trained_sessions(older.where(~itself), N_ITEMS)
        expected += session_neighbour_lists(older.where(itself), others, config, key="session_id", k=9).collect()
    assert sorted(found) == sorted(expected)
    assert len({row["session_id"] for row in found}) == len(OLDER) - 1  # nobody else has what s6 has


@pytest.mark.parametrize("ties", ["conservative", "standard", "median"])
def test_ranks_of_next_items_by_counting(older, current, ties):
    trained = trained_sessions(older, N_ITEMS)
    expected = {}
    for name, items in CURRENT.items():
        items = known(items)
        for position in range(1, len(items)):
            scores = expected_scores(items[:position], USERS.get(name))
            all_scores = [scores.get(i, 0.0) for i in np.flatnonzero(trained.trained).tolist()]
            own = scores.get(items[position], 0.0)
            at_least, more = sum(s >= own for s in all_scores), sum(s > own for s in all_scores)
            rank = {"conservative": at_least, "standard": more + 1, "median": (at_least + more + 1) / 2}[ties]
            expected[name, position] = (items[position], rank)
    rows = next_item_ranks(current, trained, CONFIG, ties).collect()
    assert {(r["session_id"], r["position"]): (r["item_idx"], r["rank"]) for r in rows} == expected
    assert len(rows) == len(expected) == 2 + 5 + 1
    counted = left_out(current, trained.trained)
    judged = counted["events"] - counted["events_unseen"] - counted["events_short"]
    assert len(rows) == judged - (counted["sessions"] - counted["sessions_short"])
    assert next_item_ranks(current.where("false"), trained, CONFIG, ties).count() == 0


@pytest.mark.parametrize("ties", ["conservative", "standard"])
def test_ranks_among_what_is_new_to_the_user_by_counting(spark, older, ties):
    trained = trained_sessions(older, N_ITEMS)
    had = {"a": [3, 9, 50], "d": [3], "f": [], "e": [8]}
    expected = {}
    for name, taken in had.items():
        items = known(CURRENT[name])
        for position in range(1, len(items)):
            before = {*taken, *items[:position]}
            scores = expected_scores(items[:position], USERS.get(name))
            others = [scores.get(i, 0.0) for i in np.flatnonzero(trained.trained).tolist() if i not in before]
            own = scores.get(items[position], 0.0)
            rank = sum(s >= own for s in others) if ties == "conservative" else sum(s > own for s in others) + 1
            expected[name, position] = None if items[position] in before else rank
    rows = [(name, USERS.get(name), CURRENT[name], taken) for name, taken in had.items()]
    frame = spark.createDataFrame(rows, "session_id string, user_idx int, items array<int>, seen array<int>")
    found = next_item_ranks(frame, trained, CONFIG, ties).collect()
    assert {(r["session_id"], r["position"]): r["new_rank"] for r in found} == expected
    assert [expected["d", position] for position in (3, 4)] == [None, None]
    assert sum(rank is not None for rank in expected.values()) == 2 + 3 + 1


@pytest.mark.integration
def test_own_items_are_taken_back_in_lists_and_ranks(spark, older):
    """After items 1, 2 all four neighbours have 2 itself; but 5 follows."""
    trained = trained_sessions(older, N_ITEMS)
    frame = spark.createDataFrame([("x", None, [1, 2, 5])], "session_id string, user_idx int, items array<int>")
    config = SessionNeighboursConfig(neighbours=4, idf=0.0)
    first, rank = {}, {}
    for own in (1.0, 0.1):
        asked = frame.selectExpr("session_id", "user_idx", "slice(items, 1, 2) AS items")
        rows = session_neighbour_lists(asked, trained, config, key="session_id", k=1, own_items=own).collect()
        first[own] = rows[0]["item_idx"]
        ranked = next_item_ranks(frame, trained, config, own_items=own).collect()
        rank[own] = next(row["rank"] for row in ranked if row["position"] == 2)
    assert first == {1.0: 2, 0.1: 5}
    assert rank[1.0] > rank[0.1] == 1.0


def test_an_item_that_no_neighbour_has_ties_with_all_others_like_it(older, current):
    trained = trained_sessions(older, N_ITEMS)
    ranks = {}
    for ties in ("conservative", "standard", "median"):
        (row,) = next_item_ranks(current.where("session_id = 'f'"), trained, CONFIG, ties).collect()
        ranks[ties] = row["rank"]
    assert ranks == {"conservative": 10.0, "standard": 3.0, "median": 6.5}  # 10 and 11 score, 8 others do not


def test_parts_of_a_batch_change_no_rank(monkeypatch):
    import pyarrow as pa

    rng = np.random.default_rng(4)
    held = [rng.integers(0, 30, rng.integers(1, 9)).tolist() for _ in range(60)]
    trained = trained_of(held, 30, [n % 5 for n in range(60)])
    index = Index.build(trained, SessionNeighboursConfig(neighbours=7))
    sessions = [rng.integers(0, 30, rng.integers(0, 12)).tolist() for _ in range(25)]
    batch = pa.RecordBatch.from_arrays(
        [pa.array([str(i) for i in range(25)]), pa.array([i % 4 or None for i in range(25)], pa.int32()),
         pa.array(sessions, pa.list_(pa.int32()))],
        names=["session_id", "user_idx", "items"],
    )  # fmt: skip
    found = []
    for at_once in (50_000, 1, 17):
        monkeypatch.setattr(session_neighbours, "EVENTS_AT_ONCE", at_once)
        parts = list(session_neighbours._batch_ranks(index, batch, "conservative"))
        found.append([row for part in parts for row in part.to_pylist()])
    assert len(found[0]) > 80
    assert found[0] == found[1] == found[2]


def test_a_saved_model_is_read_back_and_a_broken_one_is_none(spark, older, tmp_path):
    path = str(tmp_path / "model")
    save_session_neighbours(older, path, {"n_items": N_ITEMS})
    loaded, meta = load_session_neighbours(spark, path)
    assert meta == {"n_items": N_ITEMS}
    again, before = trained_sessions(loaded, N_ITEMS), trained_sessions(older, N_ITEMS)
    assert (again.items != before.items).nnz == 0
    assert again.users.tolist() == before.users.tolist() == [n % 3 or -1 for n in range(len(OLDER))][::-1]
    Path(path, "model.json").unlink()
    with pytest.raises(UserError, match="no model of session neighbours"):
        load_session_neighbours(spark, path)
