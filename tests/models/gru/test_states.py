"""Hidden states and ranks of next items on Spark, against a plain loop."""

import numpy as np
import pytest
import torch

from sparkrec.models.gru.network import GruNetwork
from sparkrec.models.gru.protocol import init_parameters, to_tensors
from sparkrec.models.gru.states import left_out, next_item_ranks, output_items, session_states, trained_items
from sparkrec.ranks.checkpoint import save_model

N_ITEMS = 11
UNTRAINED = {4, 9}
SESSIONS = {
    "long": [0, 1, 2, 3, 0, 5],
    "one": [6],
    "unseen": [4, 1, 9, 7],
    "short after removal": [4, 2],
    "nothing known": [9, 4],
    "newer than the model": [3, 50, 5],
    "two": [8, 10],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with random weights; (path, network, parameters)."""
    path = str(tmp_path_factory.mktemp("model"))
    network = GruNetwork(N_ITEMS, (5, 4))
    parameters = init_parameters(network, 2)
    for table in parameters.tables:
        table.normal_(generator=torch.Generator().manual_seed(3))
        table[10] = table[5]  # a tie
    counts = torch.tensor([0 if i in UNTRAINED else i + 1 for i in range(N_ITEMS)])
    described = {"n_items": N_ITEMS, "config": {"layers": [5, 4]}}
    save_model(path, {**to_tensors(network, parameters), "counts": counts}, described)
    return path, network, parameters


@pytest.fixture(scope="module")
def sessions(spark):
    rows = [(name, None if name == "one" else i, items) for i, (name, items) in enumerate(SESSIONS.items())]
    return spark.createDataFrame(rows, "session_id string, user_idx int, items array<int>").repartition(2)


def known(items):
    return [i for i in items if i < N_ITEMS and i not in UNTRAINED]


def walk(network, parameters, items):
    """The last layer's state after each event, one event at a time, from zero."""
    states = [torch.zeros(1, w) for w in network.state_widths]
    found = []
    for item in items:
        vector, states = network.advance(parameters, torch.tensor([item]), states, torch.zeros(1, dtype=torch.int8))
        found.append(vector[0])
    return found


@pytest.mark.integration
def test_states_are_those_of_each_session_alone(sessions, model):
    path, *served = model
    rows = {r["session_id"]: r for r in session_states(sessions, path).collect()}
    assert rows.keys() == SESSIONS.keys()
    for i, (name, items) in enumerate(SESSIONS.items()):
        expected = walk(*served, known(items))[-1].tolist() if known(items) else [0.0] * 4
        assert rows[name]["vector"] == pytest.approx(expected, abs=1e-6)
        assert rows[name]["n_known"] == len(known(items))
        assert rows[name]["user_idx"] == (None if name == "one" else i)


@pytest.mark.integration
def test_an_lstm_carries_its_cells_through_a_session(sessions, tmp_path):
    network = GruNetwork(N_ITEMS, (5, 4), cell="lstm")
    parameters = init_parameters(network, 2)
    described = {"n_items": N_ITEMS, "config": {"layers": [5, 4], "cell": "lstm"}}
    save_model(str(tmp_path), {**to_tensors(network, parameters), "counts": torch.ones(N_ITEMS)}, described)
    rows = {row["session_id"]: row["vector"] for row in session_states(sessions, str(tmp_path)).collect()}
    layers = [torch.nn.LSTMCell(n_in, width) for n_in, width in ((4, 5), (5, 4))]
    for cell, layer in zip(layers, network._layers(parameters.flat), strict=True):
        cell.load_state_dict(vars(layer))
    for name, items in SESSIONS.items():
        before = [None, None]
        for item in (i for i in items if i < N_ITEMS):
            x = parameters.tables[0][[item]]
            for i, cell in enumerate(layers):
                before[i] = cell(x, before[i])
                x = before[i][0]
        assert rows[name] == pytest.approx(x[0].tolist(), abs=1e-6), name


def test_ranks_over_all_trained_items_with_conservative_ties(sessions, model):
    path, *served = model
    weight, bias = output_items(path)
    trained = np.flatnonzero(trained_items(path))
    assert set(range(N_ITEMS)) - set(trained.tolist()) == UNTRAINED
    expected = {}
    for name, items in SESSIONS.items():
        items = known(items)
        for position, state in enumerate(walk(*served, items)[:-1], start=1):
            scores = weight @ state.numpy() + bias
            rank = int((scores[trained] >= scores[items[position]] - 1e-6).sum())
            expected[name, position] = (items[position], rank)
    found = next_item_ranks(sessions, path).collect()
    assert {(r["session_id"], r["position"]): (r["item_idx"], r["rank"]) for r in found} == expected
    assert len(found) == len(expected) == 5 + 1 + 1 + 1
    assert next(r["rank"] for r in found if r["session_id"] == "two") >= 2  # 10 ties with 5: both count


def test_ranks_among_what_is_new_to_the_user(spark, model):
    """Of all trained items but those that the user had taken before, and that the session has by then."""
    path, *served = model
    weight, bias = output_items(path)
    trained = np.flatnonzero(trained_items(path))
    had = {"long": [1, 7, 9, 50], "unseen": [], "two": [5], "newer than the model": [5]}
    expected = {}
    for name, taken in had.items():
        items = known(SESSIONS[name])
        for position, state in enumerate(walk(*served, items)[:-1], start=1):
            before = {*taken, *items[:position]}
            scores = weight @ state.numpy() + bias
            others = [i for i in trained.tolist() if i not in before]
            rank = int((scores[others] >= scores[items[position]] - 1e-6).sum())
            expected[name, position] = None if items[position] in before else rank
    rows = [(name, 1, SESSIONS[name], taken) for name, taken in had.items()]
    frame = spark.createDataFrame(rows, "session_id string, user_idx int, items array<int>, seen array<int>")
    found = next_item_ranks(frame, path).collect()
    assert {(r["session_id"], r["position"]): r["new_rank"] for r in found} == expected
    assert [expected["long", 1], expected["long", 4], expected["newer than the model", 1]] == [None] * 3
    assert {(r["session_id"], r["position"], r["rank"]) for r in found} == {
        (r["session_id"], r["position"], r["rank"]) for r in next_item_ranks(frame.drop("seen"), path).collect()
    }


def test_ties_in_three_ways(sessions, model):
    """Items 10 and 5 tie: after, before or between."""
    ranks = {}
    for ties in ("conservative", "standard", "median"):
        found = next_item_ranks(sessions.where("session_id = 'two'"), model[0], ties=ties).collect()
        (ranks[ties],) = [row["rank"] for row in found]
    assert ranks["conservative"] == ranks["standard"] + 1 == ranks["median"] + 0.5


def test_what_is_left_out_is_counted(sessions, model):
    counted = left_out(sessions, trained_items(model[0]))
    assert counted == {"events": 20, "sessions": 7, "events_unseen": 6, "sessions_short": 3, "events_short": 2}
    ranked = next_item_ranks(sessions, model[0]).count()
    kept_sessions = counted["sessions"] - counted["sessions_short"]
    assert ranked == counted["events"] - counted["events_unseen"] - counted["events_short"] - kept_sessions


def test_fewer_candidates(sessions, model):
    trained = np.zeros(N_ITEMS, bool)
    trained[[8, 10, 0]] = True
    found = {r["session_id"]: r["rank"] for r in next_item_ranks(sessions, model[0], trained).collect()}
    assert found.keys() == {"two", "long"}
    assert max(found.values()) <= 3


def test_no_sessions(sessions, model):
    none = sessions.where("false")
    assert session_states(none, model[0]).count() == 0
    assert next_item_ranks(none, model[0]).count() == 0
    assert left_out(none, trained_items(model[0]))["events"] == 0
