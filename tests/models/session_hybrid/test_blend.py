"""The GRU's scores beside the votes of session neighbours: by hand, as ranks and as lists."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, vstack

from sparkrec.errors import InvariantError
from sparkrec.models.gru import states as gru_states
from sparkrec.models.gru.network import GruNetwork
from sparkrec.models.gru.protocol import init_parameters, to_tensors
from sparkrec.models.session_hybrid.blend import SessionHybrid, session_hybrid_lists
from sparkrec.models.session_hybrid.settings import SessionHybridConfig
from sparkrec.models.session_neighbours.nearest import NUMBER, numbered
from sparkrec.models.session_neighbours.settings import SessionNeighboursConfig
from sparkrec.models.session_neighbours.votes import Index, TrainedSessions, looked_at
from sparkrec.ranks.checkpoint import save_model
from sparkrec.retrieval.block_search import ItemMatrix

N_ITEMS = 12
UNTRAINED = {4, 9}
TRAINED = sorted(set(range(N_ITEMS)) - UNTRAINED)
NEIGHBOURS = SessionNeighboursConfig(neighbours=3, decay="linear", last_items=5)
OLDER = [[0, 1, 2], [1, 2, 3], [5, 6], [0, 5, 7, 8], [2, 10], [11, 3]]
SESSIONS = {
    "long": [0, 1, 2, 3, 0, 5],
    "unseen": [4, 1, 9, 7],
    "two": [8, 10],
    "alone": [11, 6, 11],
}


def older():
    held = np.zeros((len(OLDER), N_ITEMS))
    for number, items in enumerate(OLDER):
        held[number, items] = 1.0
    return TrainedSessions(csr_matrix(held), np.arange(len(OLDER)) % 4, np.arange(len(OLDER)))


def hybrid(**settings):
    return SessionHybrid.build(older(), NEIGHBOURS, SessionHybridConfig(**settings))


@pytest.fixture(scope="module")
def gru(tmp_path_factory):
    """The folder of a GRU with random weights."""
    path = str(tmp_path_factory.mktemp("gru"))
    network = GruNetwork(N_ITEMS, (4,))
    parameters = init_parameters(network, 2)
    for table in parameters.tables:
        table.normal_(generator=torch.Generator().manual_seed(3))
    counts = torch.tensor([0 if i in UNTRAINED else 1 for i in range(N_ITEMS)])
    described = {"n_items": N_ITEMS, "config": {"layers": [4]}}
    save_model(path, {**to_tensors(network, parameters), "counts": counts}, described)
    return path


@pytest.fixture(scope="module")
def sessions(spark):
    rows = [(name, i, items) for i, (name, items) in enumerate(SESSIONS.items())]
    return spark.createDataFrame(rows, "session_id string, user_idx int, items array<int>").repartition(2)


def votes_after(items, own_items, user=-1):
    """float [N_ITEMS], of the neighbours alone."""
    index = Index.build(older(), NEIGHBOURS, own_items)
    asked = looked_at(np.array(items), np.array([0]), np.array([len(items)]), np.array([user]), NEIGHBOURS.last_items)
    found = np.zeros(N_ITEMS)
    for _, scores in index.scores(asked):
        found += scores.toarray()[0]
    return found


def blended_after(path, state, items, config, user):
    """Item → score, from the formula."""
    weight, bias = gru_states.output_items(path)
    g = (weight @ np.asarray(state, dtype=np.float32) + bias)[TRAINED]
    z = (g - g.mean()) / g.std()
    v = votes_after(items, config.own_items, user)
    share = (v / v.max())[TRAINED] if v.max() > 0 else np.zeros(len(TRAINED))
    return dict(zip(TRAINED, z + config.votes_weight * share**config.power, strict=True))


def test_the_score_by_hand():
    """Scores 1, 2, 3 have mean 2 and deviation √(2/3); of the votes the largest counts whole."""
    blend = hybrid(votes_weight=2.0, power=0.5, own_items=1.0)
    columns = np.array([1, 2, 3])
    asked = blend.looked_at(
        np.array([3]), np.array([0]), np.array([1]), np.array([-1])
    )  # neighbours: [1, 2, 3] and [11, 3]
    votes = votes_after([3], 1.0)
    assert votes[3] > votes[11] > votes[1] > votes[2] > 0  # 3 is in both, 11 is rare, 2 is in many others
    found = blend.blended(np.array([[1.0, 2.0, 3.0]], np.float32), columns, asked)
    z = np.array([-1.0, 0.0, 1.0]) / np.sqrt(2 / 3)
    assert found[0] == pytest.approx(z + 2.0 * np.sqrt(votes[columns] / votes[3]), rel=1e-6)


def test_without_votes_and_without_a_deviation_nothing_is_added_or_divided_by_zero():
    blend = hybrid()
    nothing = blend.looked_at(np.zeros(0, np.int64), np.array([0]), np.array([0]), np.array([-1]))
    assert blend.blended(np.ones((1, 3), np.float32), np.arange(3), nothing).tolist() == [[0.0, 0.0, 0.0]]
    with pytest.raises(InvariantError, match="2 rows of scores, 1 sessions"):
        blend.blended(np.ones((2, 3), np.float32), np.arange(3), nothing)


def test_a_session_does_not_vote_for_itself():
    """What is blended for the trained session at place 1 is what would be if it were not among them."""
    blend, scores, columns = hybrid(), np.zeros((2, len(TRAINED)), np.float32), np.array(TRAINED)
    events = np.array([1, 2, 3, 1, 2, 3])
    where = events, np.array([0, 3]), np.array([3, 6]), np.array([-1, -1])
    itself, among = blend.blended(scores, columns, blend.looked_at(*where, blend.index.places(np.array([1, 99]))))
    trained = older()
    kept = np.array([0, 2, 3, 4, 5])
    index = Index.build(TrainedSessions(trained.items[kept], trained.users[kept], trained.numbers[kept]), NEIGHBOURS)
    votes = next(index.scores(looked_at(*where, NEIGHBOURS.last_items)))[1].toarray()[0]
    assert set(columns[itself > 0]) == set(columns[votes[columns] > 0])
    assert not np.allclose(itself, among)


def known(items):
    return [item for item in items if item not in UNTRAINED]


@pytest.mark.integration
@pytest.mark.parametrize("own_items", [1.0, 0.3, 0.0])
def test_ranks_are_by_the_scores_of_both(sessions, gru, prefix_states, own_items, monkeypatch):
    monkeypatch.setattr(gru_states, "_SCORES_AT_ONCE", 2 * len(TRAINED))
    blend = hybrid(own_items=own_items)
    expected = {}
    for user, (name, items) in enumerate(SESSIONS.items()):
        items = known(items)
        for position in range(1, len(items)):
            scores = blended_after(gru, prefix_states[name, position], items[:position], blend.config, user)
            rank = sum(score >= scores[items[position]] - 1e-5 for score in scores.values())
            expected[name, position] = (items[position], rank)
    found = gru_states.next_item_ranks(sessions, gru, blend=blend).collect()
    assert {(r["session_id"], r["position"]): (r["item_idx"], r["rank"]) for r in found} == expected
    alone = gru_states.next_item_ranks(sessions, gru).collect()
    assert {tuple(r) for r in found} != {tuple(r) for r in alone}


@pytest.mark.integration
def test_without_a_weight_the_ranks_are_the_grus(sessions, gru):
    both = gru_states.next_item_ranks(sessions, gru, blend=hybrid(votes_weight=0.0)).collect()
    assert sorted(map(tuple, both)) == sorted(map(tuple, gru_states.next_item_ranks(sessions, gru).collect()))


@pytest.fixture(scope="module")
def prefix_states(spark, gru):
    """(session, n) → the GRU's state after the first n known items."""
    cut = [(f"{name} {n}", 0, known(items)[:n]) for name, items in SESSIONS.items() for n in range(1, len(items))]
    rows = spark.createDataFrame(cut, "session_id string, user_idx int, items array<int>")
    found = {row["session_id"]: row["vector"] for row in gru_states.session_states(rows, gru).collect()}
    return {(name, n): found[f"{name} {n}"] for name, items in SESSIONS.items() for n in range(1, len(items))}


@pytest.mark.integration
def test_lists_are_the_best_scores_without_what_is_seen_or_excluded(spark, sessions, gru):
    blend = hybrid()
    items = ItemMatrix(*gru_states.output_items(gru), gru_states.trained_items(gru))
    current = gru_states.session_states(sessions, gru).join(sessions.select("session_id", "items"), "session_id")
    seen = spark.createDataFrame([("long", 0), ("long", 1), ("two", 6)], "session_id string, item_idx int")
    lists = session_hybrid_lists(
        current, items, blend, key="session_id", k=4, seen=seen, without=np.array([2, 9]), block_mb=1
    )
    rows = lists.orderBy("session_id", "rank").collect()
    hidden = {"long": {0, 1}, "two": {6}}
    for state in current.collect():
        name = state["session_id"]
        scores = blended_after(gru, state["vector"], known(SESSIONS[name]), blend.config, state["user_idx"])
        allowed = {i: s for i, s in scores.items() if i not in hidden.get(name, set()) | {2}}
        best = sorted(allowed, key=lambda i: (-allowed[i], i))[:4]
        mine = [r for r in rows if r["session_id"] == name]
        assert [r["item_idx"] for r in mine] == best
        assert [r["rank"] for r in mine] == [1, 2, 3, 4]
        assert [r["score"] for r in mine] == pytest.approx([allowed[i] for i in best], abs=1e-4)


@pytest.mark.integration
def test_lists_of_a_session_are_those_without_it_among_the_sessions_that_vote(sessions, gru):
    """A night publishes for sessions that it has trained on what it would for others, as where the model is judged."""
    items = ItemMatrix(*gru_states.output_items(gru), gru_states.trained_items(gru))
    asked = sessions.where("session_id = 'long'")
    current = gru_states.session_states(asked, gru).join(asked.select("session_id", "items"), "session_id")
    (number,) = (row[NUMBER] for row in numbered(asked).collect())
    held = np.zeros((1, N_ITEMS))
    held[0, SESSIONS["long"]] = 1.0
    others, found = older(), []
    among = TrainedSessions(
        vstack([others.items, held]).tocsr(), np.append(others.users, -1), np.append(others.numbers, number)
    )
    for trained in (others, among):
        config = replace(NEIGHBOURS, idf=0.0)  # the frequencies know of all sessions
        blend = SessionHybrid.build(trained, config, SessionHybridConfig(votes_weight=5.0))
        rows = session_hybrid_lists(current, items, blend, key="session_id", k=9, partitions=1).collect()
        found.append(sorted((row["rank"], row["item_idx"], row["score"]) for row in rows))
    assert found[0] == found[1]


def test_votes_decay_as_the_hybrid_says():
    """The neighbours alone do best with another decay than beside the GRU, which knows what came last."""
    for decay in ("linear", "same"):
        built = SessionHybrid.build(older(), replace(NEIGHBOURS, decay="harmonic"), SessionHybridConfig(decay=decay))
        assert built.index.config.decay == decay


@pytest.mark.integration
def test_lists_do_not_depend_on_blocks(sessions, gru, monkeypatch):
    items = ItemMatrix(*gru_states.output_items(gru), gru_states.trained_items(gru))
    current = gru_states.session_states(sessions, gru).join(sessions.select("session_id", "items"), "session_id")
    found = [
        session_hybrid_lists(current, items, hybrid(), key="session_id", k=3, block_mb=size, partitions=parts)
        .select("session_id", "rank", "item_idx").orderBy("session_id", "rank").collect()
        for size, parts in ((64, 1), (0, 1), (64, 3))
    ]  # fmt: skip
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 3 * len(SESSIONS)
